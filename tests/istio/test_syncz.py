"""istiod's word on each proxy's configuration, in both of its shapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from meshscope.istio.syncz import ProxySync, read_syncz
from tests.recordings import files, names

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"


def one(answer: Any) -> ProxySync:
    read = read_syncz(json.dumps(answer).encode())
    assert read.problems == ()
    (found,) = read
    return found


@pytest.mark.parametrize("recording", names())
def test_recorded_proxies_are_in_sync(recording: str) -> None:
    (path,) = (path for path in files(recording) if path.endswith("/syncz.json"))
    read = read_syncz(files(recording)[path])
    assert read.problems == ()
    assert len(read) == 7
    for proxy in read:
        assert proxy.proxy.endswith(".bookinfo")
        assert (proxy.cluster_id, proxy.proxy_type, proxy.worst()) == ("Kubernetes", "sidecar", "SYNCED")
        assert {"CDS", "LDS", "RDS", "EDS"} <= proxy.types.keys()
        assert proxy.of("CDS").sent_time is not None


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"sent": "a", "acked": "a"}, "SYNCED"),
        ({"sent": "b", "acked": "a"}, "STALE"),
        ({"sent": "b"}, "STALE"),
        ({}, "NOT SENT"),
        ({"sent": "b", "acked": "b", "lastError": "no such filter"}, "ERROR"),
    ],
)
def test_the_http_shape(status: dict[str, str], state: str) -> None:
    status = {**status, "sentTime": "2026-11-23T12:40:07.058863078Z"}
    found = one([{"proxy": "a.ns", "istio_version": "1.32", "resources": {CDS: status}}])
    assert (found.proxy, found.version, found.of("CDS").state, found.worst()) == (
        "a.ns",
        "1.32",
        state,
        state,
    )
    assert found.of("CDS").sent_time == datetime(2026, 11, 23, 12, 40, 7, 58863, tzinfo=UTC)
    assert found.of("CDS").last_error == status.get("lastError", "")
    assert found.of("LDS").state == "IGNORED"


def test_older_istiods_have_flat_fields_only() -> None:
    found = one(
        [
            {
                "proxy": "a.ns",
                "cluster_sent": "1",
                "cluster_acked": "1",
                "listener_sent": "2",
                "listener_acked": "1",
            }
        ]
    )
    assert (found.of("CDS").state, found.of("LDS").state, found.of("RDS").state) == (
        "SYNCED",
        "STALE",
        "IGNORED",
    )
    assert found.worst() == "STALE"


def test_the_xds_shape() -> None:
    config = {
        "node": {
            "id": "sidecar~10.0.0.1~a.ns~ns.svc.cluster.local",
            "metadata": {"CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.32"},
        },
        "genericXdsConfigs": [
            {"typeUrl": CDS, "configStatus": "SYNCED", "lastUpdated": "2026-11-23T12:40:07Z"},
            {"typeUrl": LDS, "configStatus": "STALE", "errorState": {"details": "bad listener"}},
            {
                "typeUrl": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "configStatus": "NOT_SENT",
            },
        ],
    }
    for answer in ({"resources": [config]}, [config], config):
        found = one(answer)
        assert (found.proxy, found.cluster_id, found.version, found.proxy_type) == (
            "a.ns",
            "Kubernetes",
            "1.32",
            "sidecar",
        )
        assert [found.of(short).state for short in ("CDS", "LDS", "RDS", "EDS")] == [
            "SYNCED",
            "ERROR",
            "NOT SENT",
            "IGNORED",
        ]
        assert found.of("LDS").last_error == "bad listener"
        assert found.worst() == "ERROR"


def test_the_xds_shape_of_older_istiods() -> None:
    config = {"node": {"id": "a.ns"}, "xdsConfig": [{"status": "STALE", "clusterConfig": {}}]}
    assert one([config]).of("CDS").state == "STALE"


def test_an_entry_without_a_proxy_is_a_problem_of_its_own() -> None:
    read = read_syncz(json.dumps([{"proxy": "a.ns"}, {}, 3]).encode())
    assert [proxy.proxy for proxy in read] == ["a.ns"]
    assert [problem.where for problem in read.problems] == ["syncz[1]", "syncz[2]"]


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b"3", b"\xff", b"[" * 100_000])
def test_what_is_no_answer_is_a_problem(raw: bytes) -> None:
    read = read_syncz(raw)
    assert (read.proxies, len(read.problems)) == ((), 1)
