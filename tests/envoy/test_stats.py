"""Statistics have one key and one value, whichever way Envoy tells them."""

from __future__ import annotations

import pytest

from meshscope.envoy.stats import Stats, moved, read_exposition, read_prometheus, read_text
from tests.recordings import RecordedProxy, proxies

# Reading one of the two moves these: the admin's own connection, the access log's writes.
_MOVED_BY_READING = {"write_buffered"}


def _moved_by_reading(scope: str, name: str, stat: str) -> bool:
    return name == "admin" or stat in _MOVED_BY_READING


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_text_and_prometheus_agree(recorded: RecordedProxy) -> None:
    text = {(s, n, stat): value for s, n, stat, value in read_text(recorded.read("stats.txt"))}
    from_prometheus = read_prometheus(recorded.read("metrics.prom"))
    prometheus = {(s, n, stat): value for s, n, stat, value in from_prometheus}
    assert text.keys() == prometheus.keys()
    counters = [key for key in text if not from_prometheus.is_gauge(*key) and not _moved_by_reading(*key)]
    assert len(counters) > 100
    assert {key: text[key] for key in counters} == {key: prometheus[key] for key in counters}


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_gauges_of_the_untyped_text_are_known_by_name(recorded: RecordedProxy) -> None:
    text, prometheus = read_text(recorded.read("stats.txt")), read_prometheus(recorded.read("metrics.prom"))
    for scope, name, stat, _ in text:
        assert text.is_gauge(scope, name, stat) == prometheus.is_gauge(scope, name, stat), (scope, stat)


@pytest.mark.parametrize(
    ("text", "series", "key"),
    [
        (
            "cluster.outbound|9080||reviews.ns.svc.cluster.local;.upstream_rq_503: 7",
            'envoy_cluster_upstream_rq{cluster_name="outbound|9080||reviews.ns.svc.cluster.local",response_code="503"} 7',
            ("cluster", "outbound|9080||reviews.ns.svc.cluster.local", "upstream_rq_503"),
        ),
        (
            "cluster.outbound|9080||reviews.ns.svc.cluster.local.upstream_rq_5xx: 7",
            'envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",'
            'envoy_cluster_name="outbound|9080||reviews.ns.svc.cluster.local"} 7',
            ("cluster", "outbound|9080||reviews.ns.svc.cluster.local", "upstream_rq_5xx"),
        ),
        (
            "http.inbound_0.0.0.0_9080;.rbac.denied: 7",
            'envoy_http_rbac{authz_enforce_result="denied",http_conn_manager_prefix="inbound_0.0.0.0_9080"} 7',
            ("http", "inbound_0.0.0.0_9080", "rbac_denied"),
        ),
        (
            "http.inbound_0.0.0.0_9080.rbac.denied: 7",
            'envoy_http_rbac{authz_enforce_result="denied",http_conn_manager_prefix="inbound_0.0.0.0_9080"} 7',
            ("http", "inbound_0.0.0.0_9080", "rbac_denied"),
        ),
        (
            "http.inbound_0.0.0.0_9080;.rbac.istio_dry_run_allow_.shadow_denied: 7",
            'envoy_http_rbac{authz_dry_run_action="allow",authz_dry_run_result="denied",'
            'http_conn_manager_prefix="inbound_0.0.0.0_9080"} 7',
            ("http", "inbound_0.0.0.0_9080", "rbac_istio_dry_run_allow__shadow_denied"),
        ),
        (
            "tcp.rbac.denied: 7",
            'envoy_tcp{authz_enforce_result="denied",tcp_prefix="rbac"} 7',
            ("tcp", "", "rbac_denied"),
        ),
        (
            "tcp.rbac.istio_dry_run_deny_.shadow_denied: 7",
            'envoy_tcp{authz_dry_run_action="deny",authz_dry_run_result="denied",tcp_prefix="rbac.istio_dry_run_deny_"} 7',
            ("tcp", "", "rbac_istio_dry_run_deny__shadow_denied"),
        ),
        (
            "tcp.outbound|9000||tcp.ns.svc.cluster.local.downstream_cx_total: 7",
            'envoy_tcp_downstream_cx_total{tcp_prefix="outbound|9000||tcp.ns.svc.cluster.local"} 7',
            ("tcp", "outbound|9000||tcp.ns.svc.cluster.local", "downstream_cx_total"),
        ),
        (
            "listener.0.0.0.0_15006.no_filter_chain_match: 7",
            'envoy_listener_no_filter_chain_match{listener_address="0.0.0.0_15006"} 7',
            ("listener", "0.0.0.0_15006", "no_filter_chain_match"),
        ),
        (
            "listener.[__]_15006.ssl.fail_verify_error: 7",
            'envoy_listener_ssl_fail_verify_error{listener_address="[__]_15006"} 7',
            ("listener", "[__]_15006", "ssl_fail_verify_error"),
        ),
        (
            "listener.0.0.0.0_15006;.ssl.handshake: 7",
            'envoy_listener_ssl_handshake{listener_address="0.0.0.0_15006;"} 7',
            ("listener", "0.0.0.0_15006", "ssl_handshake"),
        ),
        (
            "listener.0.0.0.0_15006.http.inbound_0.0.0.0_9080;.downstream_rq_5xx: 7",
            'envoy_listener_http_inbound_0_0_0_0_9080__downstream_rq{response_code_class="5xx",'
            'listener_address="0.0.0.0_15006"} 7',
            ("listener", "0.0.0.0_15006", "http_inbound_0_0_0_0_9080__downstream_rq_5xx"),
        ),
        (
            "server.worker_0.watchdog_miss: 7",
            'envoy_server_watchdog_miss{thread_name="worker_0"} 7',
            ("server", "", "worker_0_watchdog_miss"),
        ),
        (
            "cluster_manager.cds.update_rejected: 7",
            "envoy_cluster_manager_cds_update_rejected{} 7",
            ("cluster_manager", "", "cds_update_rejected"),
        ),
        (
            "sds.default.update_rejected: 7",
            "envoy_sds_default_update_rejected 7",
            ("sds", "default", "update_rejected"),
        ),
    ],
)
def test_keys(text: str, series: str, key: tuple[str, str, str]) -> None:
    assert list(read_text(text.encode())) == [(*key, 7.0)]
    assert list(read_prometheus(series.encode())) == [(*key, 7.0)]


def test_code_and_class_are_two_stats_not_counted_twice() -> None:
    raw = b"""# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{cluster_name="a",response_code="503"} 3
envoy_cluster_upstream_rq{cluster_name="a",response_code="500"} 1
envoy_cluster_upstream_rq{cluster_name="a",response_code_class="5xx"} 4
"""
    stats = read_prometheus(raw)
    assert stats.scope("cluster", "a") == {"upstream_rq_503": 3, "upstream_rq_500": 1, "upstream_rq_5xx": 4}
    assert stats.find("cluster", "upstream_rq_5xx") == {"a": 4}
    assert stats.names("cluster") == ["a"]
    assert stats.get("cluster", "a", "upstream_rq_504") is None


def test_histograms_text_and_foreign_series_are_left_out() -> None:
    text = b'cluster.a;.upstream_rq_time: P0(1,1) P100(2,2)\ncluster_manager.cds.version_text: "2026: 5"\nx\n: 1\n'
    assert [key[:3] for key in read_text(text)] == [("", "", "")]
    raw = b"""# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{cluster_name="a",le="0.5"} 0
envoy_cluster_upstream_rq_time_sum{cluster_name="a"} 0
envoy_cluster_upstream_rq_time_count{cluster_name="a"} 0
istio_requests_total{reporter="source"} 5
go_goroutines 7
"""
    assert len(read_prometheus(raw)) == 0


def _stats(text: str) -> Stats:
    return read_text(text.encode())


def test_only_what_rose_between_two_samples_has_moved() -> None:
    before = _stats(
        "cluster.a;.upstream_rq_total: 10\ncluster.a;.upstream_cx_active: 9\nhttp.b;.rbac.denied: 5\n"
    )
    now = _stats(
        "cluster.a;.upstream_rq_total: 13\ncluster.a;.upstream_cx_active: 1\nhttp.b;.rbac.denied: 5\n"
        "cluster.a;.upstream_rq_503: 2\n"
    )
    found = moved(before, now)
    assert found.scope("cluster", "a") == {"upstream_rq_total": 3, "upstream_rq_503": 2}
    assert found.get("http", "b", "rbac_denied") == 0


def test_a_proxy_that_started_again_counts_from_nothing() -> None:
    before = _stats("server.uptime: 5000\ncluster.a;.upstream_rq_total: 10\ncluster.a;.upstream_rq_503: 1\n")
    now = _stats("server.uptime: 20\ncluster.a;.upstream_rq_total: 4\ncluster.a;.upstream_rq_503: 3\n")
    assert moved(before, now).scope("cluster", "a") == {"upstream_rq_total": 4, "upstream_rq_503": 3}
    fell = moved(_stats("cluster.a;.upstream_rq_total: 10\n"), _stats("cluster.a;.upstream_rq_total: 4\n"))
    assert fell.get("cluster", "a", "upstream_rq_total") == 4


def test_a_gauge_of_either_sample_is_a_gauge() -> None:
    gauge = b'# TYPE envoy_cluster_odd gauge\nenvoy_cluster_odd{cluster_name="a"} 5\n'
    counter = b'envoy_cluster_odd{cluster_name="a"} 7\n'
    assert len(moved(read_prometheus(gauge), read_prometheus(counter))) == 0


def test_an_exposition_is_read_with_its_quirks() -> None:
    raw = rb"""# HELP pilot_xds number
# TYPE pilot_xds gauge
pilot_xds{version="1.32",path="a\\b \"q\" } \n"} 3 1795436822467
pilot_total_xds_rejects{type="type.googleapis.com/envoy.config.listener.v3.Listener"} 2e+1
plain +Inf
no_value
bad{ 1
# TYPE pilot_time histogram
pilot_time_bucket{le="1"} 1
"""
    samples = read_exposition(raw)
    assert [(s.name, s.value, s.type) for s in samples] == [
        ("pilot_xds", 3.0, "gauge"),
        ("pilot_total_xds_rejects", 20.0, ""),
        ("plain", float("inf"), ""),
        ("pilot_time_bucket", 1.0, "histogram"),
    ]
    assert samples[0].labels == {"version": "1.32", "path": 'a\\b "q" } \n'}
