"""The tables of real proxies are those that istioctl printed at that moment, cell by cell."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from meshscope.envoy.config_dump import ConfigDump
from meshscope.istio.tables.clusters import ClusterFilter, cluster_table
from meshscope.istio.tables.endpoints import EndpointFilter, eds_table
from meshscope.istio.tables.listeners import ListenerFilter, listener_table
from meshscope.istio.tables.routes import RouteFilter, route_table
from meshscope.istio.tables.secrets import secret_table
from meshscope.istio.tables.table import Table
from meshscope.istio.tables.versions import versions
from tests import recordings
from tests.recordings import RecordedProxy

Printed = tuple[tuple[str, ...], list[tuple[str, ...]]]

GOLDEN = [
    proxy
    for proxy in recordings.proxies()
    if f"golden/pc-all-{proxy.pod}.txt" in recordings.files(proxy.recording)
]

TABLES: dict[str, Callable[[ConfigDump, RecordedProxy], Table]] = {
    "cluster": lambda config, _: cluster_table(config, ClusterFilter()),
    "listener": lambda config, _: listener_table(config, ListenerFilter()),
    "secret": lambda config, proxy: secret_table(config, proxy.captured_at),
    "endpoint": lambda config, _: eds_table(config, EndpointFilter()),
}


def printed(proxy: RecordedProxy) -> tuple[list[str], dict[str, Printed]]:
    """What `istioctl proxy-config all` printed: the lines before the tables, and the tables by kind."""
    text = recordings.files(proxy.recording)[f"golden/pc-all-{proxy.pod}.txt"].decode()
    head, *tables = ([*lines] for lines in _paragraphs(text))
    return head, {rows[1].partition("/")[0].strip(): _table(rows) for rows in tables}


def _paragraphs(text: str) -> Iterator[list[str]]:
    for blank, lines in itertools.groupby(text.splitlines(), lambda line: not line.strip()):
        if not blank:
            yield list(lines)


def _table(lines: Sequence[str]) -> Printed:
    """Cells by the columns that their headings begin at."""
    headings = [cell for cell in lines[0].replace("VHOST NAME", "VHOST_NAME").split("  ") if cell.strip()]
    names = [heading.strip().replace("_", " ") for heading in _with_single_gaps(headings)]
    starts, position = [], 0
    for name in names:
        position = lines[0].index(name, position)
        starts.append(position)
        position += len(name)
    ends = [*starts[1:], None]
    cells = [tuple(line[a:b].strip() for a, b in zip(starts, ends, strict=True)) for line in lines[1:]]
    return tuple(names), cells


def _with_single_gaps(headings: Sequence[str]) -> Iterator[str]:
    """The listeners' table has its columns one space apart where they are narrow."""
    for heading in headings:
        if heading.split()[:2] == ["PORT", "MATCH"]:
            yield from heading.split()
        else:
            yield heading


def cells(table: Table) -> list[tuple[str, ...]]:
    return [row.cells[: len(table.columns)] for row in table.rows]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("proxy", GOLDEN, ids=str)
def test_the_table_is_istioctls(proxy: RecordedProxy, kind: str) -> None:
    table = TABLES[kind](ConfigDump(proxy.read("config_dump.json")), proxy).typed()
    columns, rows = printed(proxy)[1][kind]
    assert table.columns == columns
    assert cells(table) == rows
    assert not table.problems


@pytest.mark.parametrize("proxy", GOLDEN, ids=str)
def test_the_routes_are_istioctls_but_for_the_order_of_configurations(proxy: RecordedProxy) -> None:
    table = route_table(ConfigDump(proxy.read("config_dump.json")), RouteFilter()).typed()
    columns, rows = printed(proxy)[1]["route"]
    assert table.columns == columns
    assert Counter(cells(table)) == Counter(rows)
    for name in {row[0] for row in rows}:
        assert [row for row in cells(table) if row[0] == name] == [row for row in rows if row[0] == name]
    ports = [int(row[0].partition("/")[2]) for row in cells(table) if row[0].partition("/")[2].isdigit()]
    assert ports == sorted(ports)


@pytest.mark.parametrize("proxy", GOLDEN, ids=str)
def test_the_versions_are_istioctls(proxy: RecordedProxy) -> None:
    said = [f"{name}: {value}" for name, value in versions(ConfigDump(proxy.read("config_dump.json")))]
    assert said == [" ".join(line.split()) for line in printed(proxy)[0]]


def test_every_recorded_proxy_that_istioctl_was_asked_about_is_compared() -> None:
    assert len(GOLDEN) == 9
