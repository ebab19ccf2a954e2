"""`meshscope proxy-config`: istioctl's tables and filters, Envoy's own messages, and what can't be shown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshscope.cli.exits import Exit
from tests import recordings

from .conftest import Meshscope

REVIEWS = "reviews-v2-6974b79895-v9rnr"
GOLDEN = [
    proxy
    for proxy in recordings.proxies()
    if f"golden/pc-all-{proxy.pod}.txt" in recordings.files(proxy.recording)
]


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config dump of one proxy in a file."""
    path = tmp_path_factory.mktemp("dump") / "config_dump.json"
    path.write_bytes(recordings.files("healthy-fullstats")[f"proxies/bookinfo/{REVIEWS}/config_dump.json"])
    return path


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The healthy recording as a directory, which is read faster than an archive."""
    target = tmp_path_factory.mktemp("healthy")
    for path, content in recordings.files("healthy-fullstats").items():
        if not path.startswith("golden/"):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content)
    return target


def folded(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("proxy", GOLDEN, ids=str)
def test_all_is_what_istioctl_prints(meshscope: Meshscope, proxy: recordings.RecordedProxy) -> None:
    bundle = recordings.DIRECTORY / f"{proxy.recording}.tar.gz"
    ran = meshscope("pc", "all", f"{proxy.pod}.{proxy.namespace}", "--bundle", bundle)
    assert (ran.code, ran.stderr) == (Exit.OK, "")
    theirs = recordings.files(proxy.recording)[f"golden/pc-all-{proxy.pod}.txt"].decode()
    ours, wanted = folded(ran.stdout), folded(theirs)
    # The order of route configurations is istioctl's accident (docs/tables.md).
    assert Counter(ours) == Counter(wanted)
    assert [line for line in ours if not line.startswith("route/")] == [
        line for line in wanted if not line.startswith("route/")
    ]


@pytest.mark.parametrize(
    ("arguments", "first_cells"),
    [
        (["cluster", "--fqdn", "ratings"], ["ratings.bookinfo.svc.cluster.local"]),
        (["c", "--fqdn", "Passthrough"], ["InboundPassthroughCluster", "PassthroughCluster"]),
        (["clusters", "--direction", "inbound"], ["9080"]),
        (["cluster", "--subset", "v", "--port", "9080", "--direction", "inbound"], []),
        (["listener", "--port", "9080"], ["0.0.0.0", "0.0.0.0"]),
        (["l", "--address", "10.96.0.10", "--type", "tcp"], ["10.96.0.10"]),
        (["listener", "--address", "10.96.0.10", "--type", "HTTP+TCP"], ["10.96.0.10", "10.96.0.10"]),
        (["route", "--name", "9080"], ["9080"] * 4),
        (["r", "--name", "908"], []),
        (
            ["endpoint", "--cluster", "outbound|9080|v2|reviews.bookinfo.svc.cluster.local"],
            ["10.88.1.56:9080"],
        ),
        (["ep", "--address", "10.88.1.55"], ["10.88.1.55:9080"]),
        (["endpoints", "--status", "unhealthy"], []),
        (["eds", "--address", "10.88.1.55:9080", "--status", "healthy"], ["10.88.1.55:9080"]),
        (["secret"], ["default", "ROOTCA"]),
        (["ecds"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_filters(meshscope: Meshscope, healthy: Path, arguments: list[str], first_cells: list[str]) -> None:
    kind, *filters = arguments
    ran = meshscope("proxy-config", kind, REVIEWS, "--bundle", healthy, *filters)
    assert ran.code == Exit.OK
    assert [line.split()[0] for line in ran.stdout.splitlines()[1:]] == first_cells


@pytest.mark.parametrize("given", [("-f", "-"), ("--file", "-"), ("--file=-",)])
def test_a_dump_from_stdin(
    meshscope: Meshscope, dump: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    with dump.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        ran = meshscope("pc", "cluster", *given)
    assert ran.code == Exit.OK
    assert ran.stdout.startswith("SERVICE FQDN")


@pytest.mark.parametrize("kind", ["cluster", "listener", "route", "eds", "secret"])
def test_json_is_envoys_messages_in_the_tables_order(meshscope: Meshscope, dump: Path, kind: str) -> None:
    messages = json.loads(meshscope("pc", kind, "--file", dump, "-o", "json").stdout)
    table = meshscope("pc", kind, "-f", dump).stdout
    cells = [line.split() for line in table.splitlines()[1:]]
    match kind:
        case "eds":
            assert [message["cluster_name"] for message in messages] == unique(row[-1] for row in cells)
        case "listener":
            sockets = [message["address"]["socket_address"] for message in messages]
            found = unique((socket["address"], str(socket["port_value"])) for socket in sockets)
            assert found == unique((row[0], row[1]) for row in cells)
        case "route":
            assert unique(message.get("name") for message in messages if message.get("name")) == unique(
                row[0] for row in cells if row[0] != "backend"
            )
        case _:
            assert len(messages) == len(cells)
    held = json.loads(dump.read_bytes())
    assert all(_holds(held, message) for message in messages)
    assert yaml.safe_load(meshscope("pc", kind, "-f", dump, "-o", "yaml").stdout) == messages


def unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _holds(value: Any, message: Any) -> bool:
    """Whether a message is anywhere in a dump, exactly as it is."""
    if value == message:
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds(part, message) for part in parts)


def test_a_filter_thins_out_endpoints_within_a_message(meshscope: Meshscope, dump: Path) -> None:
    ran = meshscope("pc", "eds", "-f", dump, "--address", "10.88.1.56:9080", "-o", "json")
    for assignment in json.loads(ran.stdout):
        for locality in assignment["endpoints"]:
            for endpoint in locality["lb_endpoints"]:
                assert endpoint["endpoint"]["address"]["socket_address"]["address"] == "10.88.1.56"


def test_the_bootstrap_is_json(meshscope: Meshscope, dump: Path) -> None:
    document = json.loads(meshscope("pc", "bootstrap", "-f", dump).stdout)
    assert document["bootstrap"]["node"]["cluster"] == "reviews.bookinfo"
    assert meshscope("pc", "b", "-f", dump, "-o", "short").stdout.startswith("Istio Version: 1.32-alpha")


def test_all_as_json_is_the_dump(meshscope: Meshscope, dump: Path) -> None:
    assert json.loads(meshscope("pc", "all", "-f", dump, "-o", "json").stdout) == json.loads(
        dump.read_bytes()
    )


def test_wide_says_what_is_behind(meshscope: Meshscope, healthy: Path) -> None:
    ran = meshscope("pc", "cluster", REVIEWS, "--bundle", healthy, "-o", "wide", "--fqdn", "details")
    assert ran.stdout.splitlines()[1].split()[-2:] == ["ACTIVE", "Service/bookinfo/details"]


def test_a_workload_or_a_service_stands_for_its_pod(meshscope: Meshscope, healthy: Path) -> None:
    by_pod = meshscope("pc", "cluster", REVIEWS, "--bundle", healthy).stdout
    assert (
        meshscope("pc", "cluster", "deploy/reviews-v2", "-n", "bookinfo", "--bundle", healthy).stdout
        == by_pod
    )
    several = meshscope("pc", "cluster", "svc/reviews.bookinfo", "--bundle", healthy)
    assert several.code == Exit.OK
    assert "has 3 pods" in several.stderr


def test_warming_and_rejected_resources_are_marked(meshscope: Meshscope, tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 1}}
    listener = {"name": "a", "address": address, "filter_chains": [{}]}
    refused = {"details": "bad \x1b[2J filter", "last_update_attempt": "2026-11-23T12:00:00Z"}
    section = {
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "dynamic_listeners": [
            {"name": "a", "active_state": {"listener": listener}, "error_state": refused},
            {"name": "b", "warming_state": {"listener": {**listener, "name": "b"}}},
        ],
    }
    path.write_text(json.dumps({"configs": [section]}))
    ran = meshscope("pc", "listener", "-f", path, "-o", "wide")
    assert "ACTIVE, update REJECTED" in ran.stdout.splitlines()[1]
    assert "WARMING" in ran.stdout.splitlines()[2]
    assert "REJECTED listener a: bad \\x1b[2J filter" in ran.stderr


def test_hostile_names_come_out_harmless(meshscope: Meshscope, tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    cluster = {"name": "\x1b[2Jevil\u202e\n", "type": "EDS", "alt_stat_name": "Bearer abcdefghijklmnop"}
    section = {
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
        "static_clusters": [{"cluster": cluster}],
    }
    path.write_text(json.dumps({"configs": [section]}))
    for form in ("text", "wide", "json", "yaml"):
        ran = meshscope("pc", "cluster", "-f", path, "-o", form)
        assert "\x1b" not in ran.stdout
        assert "\u202e" not in ran.stdout
        assert "abcdefghijklmnop" not in ran.stdout
        assert "evil" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clutser", "a"], "proxy-config shows cluster"),
        (["log", "a"], "only reads"),
        (["cluster"], "either POD or --file"),
        (["cluster", "a", "-f", "b"], "either POD or --file"),
        (["route", "a", "--fqdn", "b"], "--fqdn doesn't apply to route"),
        (["cluster", "-f", "/nowhere"], "can't be read"),
        (["cluster", "-f", "/dev/null"], "is no config dump"),
        (["endpoint", "-f", "/dev/null"], "is no answer of /clusters"),
    ],
)
def test_wrong_usage(meshscope: Meshscope, arguments: list[str], says: str) -> None:
    ran = meshscope("proxy-config", *arguments)
    assert (ran.code, ran.stdout) == (Exit.USAGE, "")
    assert says in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("cluster", "config_dump.json"), ("endpoint", "clusters.json"), ("all", "config_dump.json")],
)
@pytest.mark.parametrize("content", [None, b"", b'{"configs": [', b"[]"])
def test_a_part_that_is_missing_or_broken_is_unavailable(
    meshscope: Meshscope, tmp_path: Path, kind: str, missing: str, content: bytes | None
) -> None:
    folder = tmp_path / f"bundle/proxies/bookinfo/{REVIEWS}"
    folder.mkdir(parents=True)
    (tmp_path / "bundle/bundle.json").write_text('{"schema": 1, "captured_at": "2026-11-23T12:00:00Z"}')
    (folder / "server_info.json").write_text("{}")
    if content is not None:
        (folder / missing).write_bytes(content)
    ran = meshscope("pc", kind, REVIEWS, "--bundle", tmp_path / "bundle")
    assert (ran.code, ran.stdout) == (Exit.UNREACHABLE, "")
    assert missing in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_masked_dump_is_not_an_empty_proxy(meshscope: Meshscope, tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    section = {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump"}
    path.write_text(json.dumps({"configs": [section]}))
    assert meshscope("pc", "cluster", "-f", path).code == Exit.OK
    ran = meshscope("pc", "listener", "-f", path)
    assert (ran.code, ran.stdout) == (Exit.UNREACHABLE, "")
    assert "has no listener section" in ran.stderr
    assert "include_eds" in meshscope("pc", "eds", "-f", path).stderr


def test_a_resource_that_cannot_be_read_costs_itself_alone(meshscope: Meshscope, tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    section = {
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
        "static_clusters": [{"cluster": {"name": 7}}, {"cluster": {"name": "good"}}],
    }
    path.write_text(json.dumps({"configs": [section]}))
    ran = meshscope("pc", "cluster", "-f", path)
    assert [line.split()[0] for line in ran.stdout.splitlines()[1:]] == ["good"]
    assert "can't be read" in ran.stderr
