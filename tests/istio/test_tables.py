"""The tables of real proxies are those that istioctl printed at that moment, cell by cell."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshscope.envoy.config_dump import ConfigDump, ConfigDumpError
from meshscope.istio.tables.clusters import ClusterFilter, cluster_table
from meshscope.istio.tables.endpoints import EndpointFilter, eds_table, endpoint_table
from meshscope.istio.tables.extensions import extension_table
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


# --- what the recordings don't have -------------------------------------------------------------------------


def dump(**sections: Any) -> ConfigDump:
    """A config dump of sections such as `Clusters={"static_clusters": […]}`."""
    prefix = "type.googleapis.com/envoy.admin.v3."
    configs = [{"@type": f"{prefix}{name}ConfigDump", **fields} for name, fields in sections.items()]
    return ConfigDump(json.dumps({"configs": configs}).encode())


def routes(*hosts: dict[str, Any], name: str = "80") -> list[tuple[str, ...]]:
    config = {"name": name, "virtual_hosts": list(hosts)}
    return cells(
        route_table(dump(Routes={"dynamic_route_configs": [{"route_config": config}]}), RouteFilter())
    )


def listener(**fields: Any) -> list[tuple[str, ...]]:
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 80}}
    found = {"name": "l", "address": address, **fields}
    return cells(
        listener_table(dump(Listeners={"static_listeners": [{"listener": found}]}), ListenerFilter())
    )


def network_filter(kind: str, **config: Any) -> dict[str, Any]:
    return {"name": f"envoy.filters.network.{kind}", "typed_config": {"@type": "x/y", **config}}


def test_a_virtual_host_without_routes_answers_404() -> None:
    assert routes({"name": "empty", "domains": ["*"]}) == [("80", "empty", "*", "/*", "404")]


@pytest.mark.parametrize(
    ("match", "cell"),
    [
        ({"prefix": "/a"}, "/a*"),
        ({"path": "/a"}, "/a"),
        ({"safe_regex": {"regex": "/a.*"}}, "regex /a.*"),
        ({"path_separated_prefix": "/a"}, "PathPrefix:/a"),
        ({"connect_matcher": {}}, ""),
    ],
)
def test_a_routes_match_is_told_by_its_path(match: dict[str, Any], cell: str) -> None:
    rule = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews"
    metadata = {"filter_metadata": {"istio": {"config": rule}}}
    route = {"match": match, "route": {"cluster": "c"}, "metadata": metadata}
    assert routes({"name": "h", "domains": ["h"], "routes": [route]}) == [
        ("80", "h", "h", cell, "reviews.shop")
    ]


@pytest.mark.parametrize(
    ("domains", "cell"),
    [
        ([], ""),
        (["a.ns.svc.cluster.local:80"], "a.ns.svc.cluster.local:80"),
        (["a.ns.svc.cluster.local", "a.ns", "a.ns.svc", "10.0.0.1:80"], "a.ns"),
        (["a", "b", "c", "d:80"], "a, b + 1 more..."),
        (["[fd00::1]", "[fd00::1]:80"], "[fd00::1]"),
    ],
)
def test_the_domains_are_shortened(domains: list[str], cell: str) -> None:
    assert routes({"name": "h", "domains": domains}) == [("80", "h", cell, "/*", "404")]


@pytest.mark.parametrize(
    ("match", "cell"),
    [
        ({"server_names": ["a", "b"], "transport_protocol": "tls"}, "SNI: a,b; Trans: tls"),
        ({"application_protocols": ["istio-peer-exchange", "istio"]}, "App: TCP TLS"),
        ({"application_protocols": ["http/1.0", "http/1.1", "h2c"]}, "App: HTTP"),
        (
            {"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}], "destination_port": 1},
            "Addr: 10.0.0.0/8:1",
        ),
        ({}, "ALL"),
    ],
)
def test_a_filter_chains_match(match: dict[str, Any], cell: str) -> None:
    assert listener(filter_chains=[{"filter_chain_match": match}])[0][2] == cell


@pytest.mark.parametrize(
    ("found", "cell"),
    [
        (network_filter("tcp_proxy", cluster="outbound|1||a"), "Cluster: outbound|1||a"),
        (network_filter("tcp_proxy", cluster="BlackHoleCluster"), "Non-HTTP/Non-TCP"),
        (network_filter("http_connection_manager", rds={"route_config_name": "80"}), "Route: 80"),
        (network_filter("http_connection_manager"), "HTTP"),
        (network_filter("http_connection_manager", rds=7), "unreadable: "),
        (
            network_filter(
                "tcp_proxy",
                weighted_clusters={"clusters": [{"name": "a", "weight": 9}, {"name": "b", "weight": 1}]},
            ),
            "Clusters: a (weight 9), b (weight 1)",
        ),
    ],
)
def test_where_a_filter_chain_leads(found: dict[str, Any], cell: str) -> None:
    assert listener(filter_chains=[{"filters": [found]}])[0][3].startswith(cell)


def test_all_addresses_of_a_listener_are_told_and_found() -> None:
    more = [{"address": {"socket_address": {"address": "::", "port_value": 80}}}]
    assert listener(additional_addresses=more, filter_chains=[{}])[0][0] == "0.0.0.0,::"


def test_a_secret_that_never_came_is_not_valid() -> None:
    waiting = {"name": "default", "secret": {"name": "default"}, "version_info": "uninitialized"}
    table = secret_table(dump(Secrets={"dynamic_active_secrets": [waiting]}), datetime.now(UTC))
    assert cells(table) == [("default", "", "UNINITIALIZED", "false", "", "", "")]


def test_certificates_are_judged_at_the_moment_of_the_capture() -> None:
    config = ConfigDump(GOLDEN[0].read("config_dump.json"))
    valid = [row[3] for row in cells(secret_table(config, GOLDEN[0].captured_at + timedelta(days=2)))]
    assert valid == ["false", "true"]


def test_each_trust_domain_of_a_secret_has_a_row() -> None:
    source = json.loads(GOLDEN[0].read("config_dump.json"))
    secrets = next(
        section["dynamic_active_secrets"]
        for section in source["configs"]
        if "dynamic_active_secrets" in section
    )
    root = next(found["secret"] for found in secrets if found["name"] == "ROOTCA")
    bundle = root["validation_context"]["trusted_ca"]
    domains = [{"name": name, "trust_bundle": bundle} for name in ("east.local", "west.local")]
    validator = {
        "name": "spiffe",
        "typed_config": {"@type": "x/SPIFFECertValidatorConfig", "trust_domains": domains},
    }
    secret = {
        "name": "ROOTCA",
        "secret": {"name": "ROOTCA", "validation_context": {"custom_validator_config": validator}},
    }
    table = secret_table(dump(Secrets={"dynamic_active_secrets": [secret]}), GOLDEN[0].captured_at)
    assert [row.cells[7] for row in table.rows] == ["east.local", "west.local"]
    assert {row.cells[1:4] for row in table.rows} == {("CA", "ACTIVE", "true")}


def test_filters_that_came_over_ecds_are_by_type_and_name() -> None:
    entries = [
        {"ecds_filter": {"name": name, "typed_config": {"@type": f"type.googleapis.com/{kind}"}}}
        for name, kind in (("z", "a.Wasm"), ("b", "b.Wasm"), ("a", "a.Wasm"))
    ]
    table = extension_table(dump(Ecds={"ecds_filters": entries}))
    assert cells(table) == [("a", "a.Wasm"), ("z", "a.Wasm"), ("b", "b.Wasm")]


def test_an_address_of_ipv6_a_pipe_and_an_internal_one() -> None:
    addresses = [
        {"socket_address": {"address": "fd00::1", "port_value": 80}},
        {"pipe": {"path": "/run/x"}},
        {
            "envoy_internal_address": {
                "server_listener_name": "connect_originate",
                "endpoint_id": "10.0.0.1:80",
            }
        },
    ]
    status = {"name": "c", "host_statuses": [{"address": address} for address in addresses]}
    table = endpoint_table(json.dumps({"cluster_statuses": [status]}).encode(), EndpointFilter())
    assert [row[0] for row in cells(table)] == [
        "envoy://connect_originate/10.0.0.1:80",
        "fd00::1:80",
        "unix:///run/x",
    ]


@given(st.data())
def test_whatever_a_dump_holds_is_a_row_or_a_problem(data: st.DataObject) -> None:
    """Any value anywhere in a resource is read, or told as what can't be read; nothing raises."""
    whole = json.loads(GOLDEN[0].read("config_dump.json"))
    section = data.draw(st.sampled_from([section for section in whole["configs"] if len(section) > 1]))
    spot: Any = section
    while isinstance(spot, (dict, list)) and spot:
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[key], (dict, list)) or data.draw(st.integers(0, 3)) == 0:
            spot[key] = data.draw(st.sampled_from([None, 7, "x", [], {}, [7], {"x": 7}, True, 1.5, "\udcff"]))
            break
        spot = spot[key]
    try:
        config = ConfigDump(json.dumps(whole).encode())
    except ConfigDumpError:
        return
    for make in (*TABLES.values(), lambda found, _: route_table(found, RouteFilter())):
        make(config, GOLDEN[0]).typed()
    versions(config)
