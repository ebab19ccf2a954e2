"""/clusters and /server_info as a real Envoy answers, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshscope.envoy.clusters import ClusterStatuses, read_clusters
from meshscope.envoy.config_dump import DecodeProblem
from meshscope.envoy.server_info import ServerInfo, read_server_info
from tests.recordings import RecordedProxy, proxies

NO_ANSWERS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff",
    b'{"cluster_statuses": 3}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


def _clusters(*clusters: dict[str, Any]) -> ClusterStatuses:
    read = read_clusters(json.dumps({"cluster_statuses": clusters}).encode())
    assert isinstance(read, ClusterStatuses)
    return read


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_recorded_clusters_are_read_whole(recorded: RecordedProxy) -> None:
    raw = recorded.read("clusters.json")
    read = read_clusters(raw)
    assert isinstance(read, ClusterStatuses)
    assert read.problems == ()
    assert [c.name for c in read] == [c["name"] for c in json.loads(raw)["cluster_statuses"]]
    hosts = [host for cluster in read for host in cluster.hosts]
    assert hosts
    assert all(host.eds_health_status == "HEALTHY" and host.healthy for host in hosts)
    assert all(host.address.count(":") == 1 and "rq_total" in host.stats for host in hosts)
    inbound = read.get("inbound|9080||") or read.get("xds-grpc")
    assert inbound is not None
    assert inbound.thresholds() is not None


def test_health_flags_and_counters_of_a_host() -> None:
    host = {
        "address": {"socket_address": {"address": "10.0.0.1", "port_value": 9080}},
        "stats": [{"name": "rq_total", "value": "12"}, {"type": "GAUGE", "name": "cx_active"}],
        "health_status": {"failed_outlier_check": True, "eds_health_status": "HEALTHY"},
        "success_rate": {"value": -1},
        "weight": 3,
        "priority": 1,
        "hostname": "reviews",
    }
    threshold = {"success_rate_ejection_threshold": {"value": 61.5}}
    cluster = _clusters({"name": "a", "host_statuses": [host], **threshold}).get("a")
    assert cluster is not None
    assert cluster.success_rate_ejection_threshold == 61.5
    (read,) = cluster.hosts
    assert (read.cluster, read.address, read.hostname, read.weight, read.priority) == (
        "a",
        "10.0.0.1:9080",
        "reviews",
        3,
        1,
    )
    assert read.stats == {"rq_total": 12, "cx_active": 0}
    assert read.failed_outlier_check
    assert not read.healthy
    assert read.success_rate is None
    assert cluster.host("10.0.0.1:9080") == read
    assert cluster.host("10.0.0.2:9080") is None


@pytest.mark.parametrize(
    ("health", "healthy"),
    [
        ({}, True),
        ({"eds_health_status": "DEGRADED"}, True),
        ({"eds_health_status": "DRAINING"}, False),
        ({"eds_health_status": "UNHEALTHY"}, False),
        ({"failed_active_health_check": True}, False),
        ({"eds_health_status": "SOMETHING_NEW"}, True),
    ],
)
def test_healthy_is_what_the_load_balancer_takes(health: dict[str, Any], healthy: bool) -> None:
    (cluster,) = _clusters({"name": "a", "host_statuses": [{"health_status": health}]})
    assert cluster.hosts[0].healthy is healthy


def test_addresses_of_every_kind() -> None:
    addresses = [
        {"socket_address": {"address": "fd00::1", "port_value": 80}},
        {"pipe": {"path": "./var/run/sds"}},
        {"envoy_internal_address": {"server_listener_name": "connect_originate"}},
    ]
    (cluster,) = _clusters({"name": "a", "host_statuses": [{"address": address} for address in addresses]})
    assert [host.address for host in cluster.hosts][:2] == ["[fd00::1]:80", "unix://./var/run/sds"]
    assert "connect_originate" in cluster.hosts[2].address


def test_a_cluster_that_cannot_be_read_costs_itself_alone() -> None:
    read = _clusters({"name": "a"}, {"name": ["b"]}, {"name": "c"})
    assert [cluster.name for cluster in read] == ["a", "c"]
    assert [problem.where for problem in read.problems] == ["cluster_statuses[1]"]


@pytest.mark.parametrize("raw", NO_ANSWERS)
def test_what_is_no_clusters_answer_is_a_problem(raw: bytes) -> None:
    assert isinstance(read_clusters(raw), DecodeProblem)


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_recorded_server_info(recorded: RecordedProxy) -> None:
    read = read_server_info(recorded.read("server_info.json"))
    assert isinstance(read, ServerInfo)
    assert (read.state, read.envoy_version) == ("LIVE", "1.40.0")
    assert read.uptime_s is not None
    assert read.uptime_s > 0
    assert recorded.pod in read.node.id


def test_a_state_that_is_absent_is_live() -> None:
    read = read_server_info(b'{"version": "1.2", "uptime_current_epoch": "90s"}')
    assert isinstance(read, ServerInfo)
    assert (read.state, read.uptime_s, read.envoy_version) == ("LIVE", 90, "")


@pytest.mark.parametrize("raw", NO_ANSWERS)
def test_what_is_no_server_info_is_a_problem(raw: bytes) -> None:
    assert isinstance(read_server_info(raw), DecodeProblem)
