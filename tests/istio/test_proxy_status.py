"""How far each proxy came, by what several istiods say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meshscope.istio.proxy_status import Istiod, proxy_statuses, remarks, status_table
from meshscope.istio.syncz import read_syncz

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def istiod(pod: str, *proxies: dict[str, Any], version: str = "1.27.1") -> Istiod:
    return Istiod(pod, read_syncz(json.dumps(proxies).encode()), version)


def proxy(name: str, *, age: timedelta = timedelta(), cluster: str = "one", **status: str) -> dict[str, Any]:
    sent = (NOW - age).isoformat()
    resources = {CDS: {"sent": "a", "acked": "a", "sentTime": sent, **status}}
    return {"proxy": name, "cluster_id": cluster, "istio_version": "1.27.1", "resources": resources}


def test_what_failed_comes_first_then_cluster_and_name() -> None:
    answers = [
        istiod("i1", proxy("z.ns"), proxy("b.ns", cluster="two"), proxy("a.ns")),
        istiod("i2", proxy("stale.ns", acked="b"), proxy("refused.ns", lastError="no")),
    ]
    found = proxy_statuses(answers, ("missing.ns", "a.ns"), NOW)
    assert [(status.name, status.state) for status in found] == [
        ("refused.ns", "ERROR"),
        ("missing.ns", "NO ISTIOD"),
        ("stale.ns", "STALE"),
        ("a.ns", "SYNCED"),
        ("z.ns", "SYNCED"),
        ("b.ns", "SYNCED"),
    ]


def test_a_proxy_that_moved_is_told_by_the_istiod_that_sent_last() -> None:
    answers = [istiod("new", proxy("a.ns")), istiod("old", proxy("a.ns", age=timedelta(hours=3)))]
    (status,) = proxy_statuses(answers, (), NOW)
    assert status.istiod == "new"


def test_the_same_name_in_two_clusters_is_two_proxies() -> None:
    answers = [istiod("i", proxy("a.ns"), proxy("a.ns", cluster="two"))]
    assert len(proxy_statuses(answers, (), NOW)) == 2


@pytest.mark.parametrize(
    ("age", "cell"),
    [
        (timedelta(seconds=119), "SYNCED (119s)"),
        (timedelta(minutes=90), "SYNCED (90m)"),
        (timedelta(hours=47), "SYNCED (47h)"),
        (timedelta(days=9), "SYNCED (9d)"),
        (timedelta(hours=-1), "SYNCED (0s)"),
    ],
)
def test_ages(age: timedelta, cell: str) -> None:
    (row,) = status_table(proxy_statuses([istiod("i", proxy("a.ns", age=age))], (), NOW)).rows
    assert row.cells[:6] == ("a.ns", "one", "i", "1.27.1", "1 (CDS)", cell)


@pytest.mark.parametrize(
    ("version", "differs"),
    [
        ("1.27.1", False),
        ("1.27.1-distroless", False),
        ("v1.27.1", False),
        ("1.28.0", True),
        ("lab", None),
        ("", None),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, differs: bool | None) -> None:
    (status,) = proxy_statuses([istiod("i", proxy("a.ns"), version=version)], (), NOW)
    assert status.version_differs is differs
    assert bool(remarks([status])) == bool(differs)


def test_nothing_is_said_of_a_healthy_mesh() -> None:
    assert remarks(proxy_statuses([istiod("i", proxy("a.ns"), proxy("b.ns"))], ("a.ns",), NOW)) == ()
