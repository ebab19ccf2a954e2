"""The large mesh is a mesh: whole, the same each time, and wrong in nothing but what was wrong before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshscope.diagnose.diagnose import diagnose
from meshscope.envoy.config_dump import ConfigDump
from meshscope.facts.mesh import Mesh
from meshscope.model.names import ProxyId
from meshscope.sources.bundle import open_bundle
from meshscope.sources.source import Part
from tests.performance.bench import report
from tests.performance.big_bundle import CLIENT, RECORDING, BigMesh

SIZE = 2_000_000


@pytest.fixture(scope="module")
def mesh() -> Iterator[BigMesh]:
    source = BigMesh(open_bundle(RECORDING), CLIENT, SIZE)
    yield source
    source.close()


@pytest.fixture(scope="module")
def client(mesh: BigMesh) -> ProxyId:
    return next(proxy for proxy in mesh.proxies() if str(proxy).startswith(CLIENT))


def test_the_dump_has_the_size_asked_for(mesh: BigMesh, client: ProxyId) -> None:
    dump = mesh.read(client, Part.CONFIG_DUMP)
    assert isinstance(dump, bytes)
    assert SIZE <= len(dump) < 1.05 * SIZE


def test_it_is_the_same_each_time(mesh: BigMesh, client: ProxyId) -> None:
    again = BigMesh(open_bundle(RECORDING), CLIENT, SIZE)
    for part in (Part.CONFIG_DUMP, Part.CLUSTERS):
        assert again.read(client, part) == mesh.read(client, part)
    assert again.kubernetes() == mesh.kubernetes()
    again.close()


def test_what_is_added_fits_together(mesh: BigMesh, client: ProxyId) -> None:
    raw = mesh.read(client, Part.CONFIG_DUMP)
    assert isinstance(raw, bytes)
    dump = ConfigDump(raw)
    added = [name for name in dump.clusters.by_name if "service-" in name]
    assert len(added) > 50
    assert all(name in dump.endpoints.by_name for name in added)
    assert sum("172.20." in name for name in dump.listeners.by_name) == -(-len(added) // 4)
    hosts = {
        virtual_host.name for route in dump.routes.by_name.values() for virtual_host in route.virtual_hosts
    }
    assert sum("service-" in host for host in hosts) == len(added)
    assert dump.problems == []


def test_the_findings_are_those_of_the_small_mesh(mesh: BigMesh) -> None:
    small = open_bundle(RECORDING)
    expected = [(found.cause, found.subject, found.affected) for found in diagnose(Mesh(small)).findings]
    assert expected
    assert [
        (found.cause, found.subject, found.affected) for found in diagnose(Mesh(mesh)).findings
    ] == expected
    small.close()


@pytest.mark.slow
def test_the_bench_measures_and_says_so() -> None:
    page = report(megabytes=1, runs=1, note=lambda step: None)
    assert page.startswith("# Performance\n")
    assert page.count("\n| ") == 3 + 3 + 4 + 3
