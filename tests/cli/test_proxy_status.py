"""`meshscope proxy-status`: istioctl's table, and what that table hides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from meshscope.cli.exits import Exit
from meshscope.report.schema import schema
from tests import recordings

from .conftest import Meshscope

Edit = Callable[[list[dict[str, Any]]], None]
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
REVIEWS = "reviews-v2-6974b79895-v9rnr"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The healthy recording as a directory, to be changed."""
    target = tmp_path / "bundle"
    for path, content in recordings.files("healthy-fullstats").items():
        if not path.startswith("golden/"):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content)
    return target


def edit_sync(bundle: Path, edit: Edit) -> None:
    (path,) = bundle.glob("istiod/*/syncz.json")
    answer = json.loads(path.read_bytes())
    edit(answer)
    path.write_text(json.dumps(answer))


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("recording", recordings.names())
@pytest.mark.parametrize("command", ["proxy-status", "ps"])
def test_the_table_is_istioctls(meshscope: Meshscope, recording: str, command: str) -> None:
    ran = meshscope(command, "--bundle", recordings.DIRECTORY / f"{recording}.tar.gz")
    assert ran.code == Exit.OK
    assert words(ran.stdout) == words(recordings.files(recording)["golden/proxy-status.txt"].decode())
    assert ran.stderr == ""


def test_wide_keeps_the_established_columns_first(meshscope: Meshscope, healthy: Path) -> None:
    known = meshscope("proxy-status", "--bundle", healthy).stdout.splitlines()
    wide = meshscope("proxy-status", "--bundle", healthy, "-o", "wide").stdout.splitlines()
    assert [line.split()[:6] for line in wide[1:]] == [line.split() for line in known[1:]]
    assert wide[0].split()[-5:] == ["CDS", "LDS", "EDS", "RDS", "ECDS"]
    assert wide[1].split()[6:] == [
        "SYNCED",
        "(17s)",
        "SYNCED",
        "(17s)",
        "SYNCED",
        "(17s)",
        "SYNCED",
        "(17s)",
        "IGNORED",
    ]


def test_a_refused_configuration_comes_first_with_the_proxys_words(
    meshscope: Meshscope, bundle: Path
) -> None:
    def refuse(answer: list[dict[str, Any]]) -> None:
        last = max(answer, key=lambda entry: str(entry["proxy"]))
        last["resources"][LDS]["lastError"] = "duplicate address \x1b[2J 0.0.0.0:9080"

    edit_sync(bundle, refuse)
    known = meshscope("proxy-status", "--bundle", bundle)
    assert known.stdout.splitlines()[1].startswith("reviews-v3-")
    assert "LDS ERROR: duplicate address \\x1b[2J 0.0.0.0:9080" in known.stderr
    wide = meshscope("proxy-status", "--bundle", bundle, "--verbose").stdout
    assert "ERROR (17s)" in wide.splitlines()[1]
    assert "LDS ERROR: duplicate address \\x1b[2J" in wide.splitlines()[-1]
    document = json.loads(meshscope("proxy-status", "--bundle", bundle, "-o", "json").stdout)
    assert document["proxies"][0]["state"] == "ERROR"


def test_an_unacknowledged_configuration_is_stale(meshscope: Meshscope, bundle: Path) -> None:
    def unacknowledged(answer: list[dict[str, Any]]) -> None:
        answer[-1]["resources"][LDS]["acked"] = "an older one"

    edit_sync(bundle, unacknowledged)
    assert "LDS STALE since 17s" in meshscope("proxy-status", "--bundle", bundle).stderr


def test_an_injected_pod_that_no_istiod_knows_is_named(meshscope: Meshscope, bundle: Path) -> None:
    edit_sync(bundle, lambda answer: answer.remove(answer[0]))
    known = meshscope("proxy-status", "--bundle", bundle)
    assert len(known.stdout.splitlines()) == 7
    assert "no istiod knows it" in known.stderr
    document = json.loads(meshscope("proxy-status", "--bundle", bundle, "-o", "json").stdout)
    assert [proxy["state"] for proxy in document["proxies"]] == ["NO ISTIOD", *["SYNCED"] * 6]


def test_a_proxy_of_another_version_than_its_istiod_is_named(meshscope: Meshscope, bundle: Path) -> None:
    (istiod,) = bundle.glob("istiod/*")
    (istiod / "metrics.prom").write_text('# TYPE pilot_info gauge\npilot_info{version="1.33.0"} 1\n')
    document = json.loads(meshscope("proxy-status", "--bundle", bundle, "-o", "json").stdout)
    assert {proxy["version_differs"] for proxy in document["proxies"]} == {True}
    assert "its istiod's is 1.33.0" in meshscope("proxy-status", "--bundle", bundle).stderr


def test_the_documents_keep_to_their_schema(meshscope: Meshscope, healthy: Path) -> None:
    document = json.loads(meshscope("proxy-status", "--bundle", healthy, "-o", "json").stdout)
    jsonschema.validate(document, schema("proxy-status"))


def test_without_an_istiods_answer_nothing_is_known(meshscope: Meshscope, bundle: Path) -> None:
    shutil.rmtree(bundle / "istiod")
    ran = meshscope("proxy-status", "--bundle", bundle)
    assert (ran.code, ran.stdout) == (Exit.UNREACHABLE, "")
    assert "no istiod's sync status can be read" in ran.stderr


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff", b"null"])
def test_an_answer_that_cannot_be_read_is_named(meshscope: Meshscope, bundle: Path, content: bytes) -> None:
    (path,) = bundle.glob("istiod/*/syncz.json")
    path.write_bytes(content)
    ran = meshscope("proxy-status", "--bundle", bundle)
    assert (ran.code, ran.stdout) == (Exit.UNREACHABLE, "")
    assert path.parent.name in ran.stderr
    assert "Traceback" not in ran.stderr


# --- one proxy against what istiod means --------------------------------------------------------------------


def camel(value: Any) -> Any:
    """Names as istiod writes them."""
    if isinstance(value, dict):
        return {_camel(name): camel(item) for name, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return name if "." in name else first + "".join(word.capitalize() for word in rest)


def means(bundle: Path, edit: Callable[[dict[str, Any]], None] = lambda dump: None) -> None:
    """Lets istiod mean the proxy to have what it has, but for an edit."""
    dump = json.loads((bundle / f"proxies/bookinfo/{REVIEWS}/config_dump.json").read_bytes())
    edit(dump)
    (istiod,) = bundle.glob("istiod/*")
    (istiod / "config_dump").mkdir()
    (istiod / f"config_dump/bookinfo.{REVIEWS}.json").write_text(json.dumps(camel(dump)))


def clusters(dump: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(
        section["dynamic_active_clusters"]
        for section in dump["configs"]
        if "dynamic_active_clusters" in section
    )
    return found


def test_a_proxy_that_holds_what_istiod_means_matches(meshscope: Meshscope, bundle: Path) -> None:
    means(bundle)
    ran = meshscope("proxy-status", f"{REVIEWS}.bookinfo", "--bundle", bundle)
    assert ran.code == Exit.OK
    assert [line.partition(" (")[0] for line in ran.stdout.splitlines()] == [
        "Clusters match",
        "Listeners match",
        "Routes match",
    ]


def test_a_proxy_that_holds_something_else_differs(meshscope: Meshscope, bundle: Path) -> None:
    def edit(dump: dict[str, Any]) -> None:
        del clusters(dump)[0]
        clusters(dump)[0]["cluster"]["connect_timeout"] = "77s"
        clusters(dump).append({"cluster": {"name": "outbound|1||new.bookinfo.svc.cluster.local"}})

    means(bundle, edit)
    ran = meshscope("proxy-status", REVIEWS, "--bundle", bundle)
    assert ran.code == Exit.FINDINGS
    assert "Clusters don't match (3 differ)" in ran.stdout
    assert '-  "connectTimeout": "77s",' in ran.stdout
    document = json.loads(meshscope("proxy-status", REVIEWS, "--bundle", bundle, "-o", "json").stdout)
    jsonschema.validate(document, schema("proxy-drift"))
    assert sorted(found["what"] for found in document["differences"]) == [
        "different",
        "missing",
        "unexpected",
    ]


def test_without_what_istiod_means_there_is_nothing_to_compare(meshscope: Meshscope, healthy: Path) -> None:
    ran = meshscope("proxy-status", f"{REVIEWS}.bookinfo", "--bundle", healthy)
    assert (ran.code, ran.stdout) == (Exit.UNREACHABLE, "")
    assert f"istiod/POD/config_dump/bookinfo.{REVIEWS}.json" in ran.stderr
