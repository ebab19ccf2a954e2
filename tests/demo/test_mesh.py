"""A healthy mesh of real Envoys: what runs, what it tells others, what a bundle of it holds."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from meshscope.demo import DemoMesh, bundle_for, demo_mesh
from meshscope.demo.capture import capture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def healthy() -> Iterator[DemoMesh]:
    with demo_mesh() as mesh:
        mesh.wait(2)
        yield mesh


@pytest.fixture(scope="module")
def bundle(healthy: DemoMesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return capture(healthy, tmp_path_factory.mktemp("captured") / "bundle", seconds=1.5)


def _dump(bundle: Path, workload: str) -> dict[str, dict[str, object]]:
    (path,) = bundle.glob(f"proxies/bookinfo/{workload}-*/config_dump.json")
    sections = json.loads(path.read_bytes())["configs"]
    return {section["@type"].rpartition(".")[2]: section for section in sections}


def test_every_caller_gets_answers_and_nothing_else(healthy: DemoMesh) -> None:
    outcomes = healthy.outcomes()
    assert set(outcomes) == {"productpage", "ratings"}
    for outcome in outcomes.values():
        assert set(outcome["answers"]) == {"200"}
        assert not outcome["errors"]


def test_requests_pass_two_sidecars_with_mesh_tls(healthy: DemoMesh) -> None:
    ratings = healthy.proxy("ratings-v1")
    assert re.search(rb"listener\.\S*15006\.ssl\.handshake: [1-9]", ratings.get("stats?filter=ssl.handshake"))
    line = next(line for line in ratings.log.read_text().splitlines() if "/ratings/0" in line)
    assert "outbound_.9080_._.ratings.bookinfo.svc.cluster.local default" in line
    assert f'"{healthy.spec.app_ip(ratings.workload, ratings.pod)}:9080" inbound|9080||' in line


def test_the_proxies_are_connected_to_a_control_plane(healthy: DemoMesh) -> None:
    for proxy in healthy.proxies:
        assert proxy.get("stats?filter=control_plane.connected_state").strip().endswith(b": 1")


def test_logs_hold_no_complaint(healthy: DemoMesh) -> None:
    for proxy in healthy.proxies:
        complaints = [line for line in proxy.log.read_text().splitlines() if not line.startswith("[")]
        assert complaints == []


def test_a_bundle_holds_the_layout_of_every_proxy(healthy: DemoMesh, bundle: Path) -> None:
    files = {
        "before.clusters.json",
        "before.prom",
        "certs.json",
        "clusters.json",
        "config_dump.json",
        "metrics.prom",
        "proxy.log",
        "server_info.json",
        "stats.txt",
    }
    for proxy in healthy.proxies:
        found = {path.name for path in (bundle / "proxies" / proxy.key).iterdir()}
        assert found == files
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    assert manifest["schema"] == 1
    assert manifest["meshes"] == ["istio"]
    assert len(manifest["samples"]) == 2 * len(healthy.proxies)
    assert max(manifest["samples"].values()) < manifest["captured_at"]


def test_a_bundle_holds_the_objects_with_the_cluster_s_uid(healthy: DemoMesh, bundle: Path) -> None:
    items = [
        item
        for path in (bundle / "kubernetes").glob("*.yaml")
        for item in yaml.safe_load(path.read_text())["items"]
    ]
    named = {(item["kind"], item["metadata"]["name"]): item for item in items}
    assert named[("Namespace", "kube-system")]["metadata"]["uid"] == healthy.spec.cluster_uid
    pod = next(
        item for item in items if item["kind"] == "Pod" and item["metadata"]["labels"]["app"] == "ratings"
    )
    assert [container["name"] for container in pod["spec"]["initContainers"]] == ["istio-init", "istio-proxy"]
    replica_set = named[("ReplicaSet", pod["metadata"]["ownerReferences"][0]["name"])]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == replica_set["metadata"]["uid"]
    uids = [item["metadata"]["uid"] for item in items]
    assert len(uids) == len(set(uids))
    slices = [item for item in items if item["kind"] == "EndpointSlice"]
    ratings = next(
        item for item in slices if item["metadata"]["labels"]["kubernetes.io/service-name"] == "ratings"
    )
    assert ratings["endpoints"][0]["addresses"] == [pod["status"]["podIP"]]


def test_no_private_key_reaches_a_bundle(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        if path.is_file():
            assert b"PRIVATE KEY" not in path.read_bytes()
    secrets = _dump(bundle, "ratings-v1")["SecretsConfigDump"]["dynamic_active_secrets"]
    assert isinstance(secrets, list)
    names = {secret["name"] for secret in secrets}
    assert names == {"default", "ROOTCA"}


def test_dumps_name_the_objects_as_istio_does(bundle: Path) -> None:
    dump = _dump(bundle, "productpage-v1")
    clusters = dump["ClustersConfigDump"]["dynamic_active_clusters"]
    assert isinstance(clusters, list)
    by_name = {entry["cluster"]["name"]: entry["cluster"] for entry in clusters}
    subset = by_name["outbound|9080|v2|reviews.bookinfo.svc.cluster.local"]
    assert subset["metadata"]["filter_metadata"]["istio"] == {
        "config": "/apis/networking.istio.io/v1/namespaces/bookinfo/destination-rule/reviews",
        "subset": "v2",
        "services": [
            {"host": "reviews.bookinfo.svc.cluster.local", "name": "reviews", "namespace": "bookinfo"}
        ],
    }
    assert subset["alt_stat_name"].endswith(";")
    listeners = dump["ListenersConfigDump"]["dynamic_listeners"]
    assert isinstance(listeners, list)
    names = {entry["name"] for entry in listeners}
    assert {"virtualInbound", "virtualOutbound", "0.0.0.0_9080"} <= names


def test_istiod_says_that_every_proxy_runs_what_was_sent(bundle: Path) -> None:
    (path,) = bundle.glob("istiod/*/syncz.json")
    entries = json.loads(path.read_bytes())
    assert len(entries) == 8
    for entry in entries:
        for kind in ("cluster", "listener", "route", "endpoint"):
            assert entry[f"{kind}_sent"] == entry[f"{kind}_acked"]


def test_access_logs_in_json_and_istio_s_default_statistics(tmp_path: Path) -> None:
    bundle = bundle_for([], tmp_path / "bundle", seconds=1, access_log="json", stats="default")
    (client,) = bundle.glob("proxies/bookinfo/client-*")
    entry = json.loads((client / "proxy.log").read_text().splitlines()[-1])
    assert entry["response_code"] == 200
    assert entry["upstream_transport_failure_reason"] is None
    names = (client / "stats.txt").read_text()
    assert "cluster.outbound" not in names
    assert "cluster.xds-grpc;" in names


def test_the_state_file_tells_another_process_where_everything_is(runtime_directory: Path) -> None:
    with demo_mesh() as mesh:
        (path,) = (runtime_directory / "meshscope").glob("demo-*.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        state = json.loads(path.read_bytes())
        assert path.name == f"demo-{state['pid']}.json"
        assert state["schema"] == 1
        assert state["cluster"] == mesh.spec.cluster_uid
        assert {proxy["admin"] for proxy in state["proxies"]} == {proxy.admin for proxy in mesh.proxies}
        assert all(Path(proxy["log"]).is_file() for proxy in state["proxies"])
        assert list(Path(state["kubernetes"]).glob("*.json"))
        assert list(Path(state["istiod"]).glob("*/syncz.json"))
    assert list(runtime_directory.iterdir()) == []
    assert not mesh.directory.exists()


def test_a_running_mesh_takes_changes_and_shows_who_refuses_them() -> None:
    with demo_mesh() as mesh:
        mesh.spec.patch(
            "client",
            "listener",
            "0.0.0.0_9080",
            lambda listener: listener["filter_chains"][0]["filters"][0]["typed_config"].update(
                codec_type="HTTP3"
            ),
        )
        mesh.apply()
        (path,) = mesh.istiod_directory.glob("*/syncz.json")
        entries = {entry["proxy"].split("-")[0]: entry for entry in json.loads(path.read_bytes())}
        assert entries["client"]["listener_acked"] != entries["client"]["listener_sent"]
        listener = entries["client"]["resources"]["type.googleapis.com/envoy.config.listener.v3.Listener"]
        assert "HTTP/3" in listener["lastError"]
        assert entries["ratings"]["listener_acked"] == entries["ratings"]["listener_sent"]


def test_a_frozen_proxy_keeps_what_it_has() -> None:
    with demo_mesh() as mesh:
        mesh.freeze("client")
        mesh.apply(
            lambda spec: spec.add("""
                apiVersion: networking.istio.io/v1
                kind: VirtualService
                metadata: {name: ratings}
                spec:
                  hosts: [ratings]
                  http: [{timeout: 1s, route: [{destination: {host: ratings}}]}]
            """)
        )
        routes = {
            name: mesh.proxy(name).get("config_dump?resource=dynamic_route_configs")
            for name in ("client", "ratings-v1")
        }
        assert b"virtual-service/ratings" not in routes["client"]
        assert b"virtual-service/ratings" in routes["ratings-v1"]
        (path,) = mesh.istiod_directory.glob("*/syncz.json")
        (client,) = [item for item in json.loads(path.read_bytes()) if item["proxy"].startswith("client")]
        assert client["route_acked"]
        assert client["route_acked"] != client["route_sent"]
