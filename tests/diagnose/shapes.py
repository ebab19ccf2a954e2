"""Bundles as a real Istio would leave them, made from a recording: its dumps, objects and logs with a fault put in."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests import recordings

Json = dict[str, Any]
NAMESPACE = "bookinfo"
MESH_ALPN = ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
OUTBOUND = {"response_code": 200, "response_code_details": "via_upstream", "response_flags": "-"}


@cache
def _recorded(recording: str) -> tuple[dict[str, Any], list[Json]]:
    """Decoded JSON files (others as text) and Kubernetes objects of a recording; read once."""
    files: dict[str, Any] = {}
    objects: list[Json] = []
    for path, data in recordings.files(recording).items():
        if path.startswith("golden/") or path.endswith(("stats.txt", "server_info.json")):
            continue
        if path.startswith("kubernetes/"):
            for document in yaml.load_all(data, Loader=yaml.CSafeLoader):
                objects += document.get("items", [document])
        else:
            files[path] = json.loads(data) if path.endswith(".json") else data.decode()
    return files, [found for found in objects if found["kind"] != "Event"]


class Shape:
    """A bundle to be changed. Applications are named as their Deployments are, without `-v1`."""

    def __init__(self, recording: str = "authz-deny") -> None:
        files, objects = _recorded(recording)
        self.files: dict[str, Any] = copy.deepcopy(files)
        self.objects: list[Json] = copy.deepcopy(objects)
        self.captured_at = datetime.fromisoformat(self.files["bundle.json"]["captured_at"])
        self._lines: dict[str, list[Json | str]] = {}
        self._tick = 0
        if recording == "authz-deny":
            self._pardon()
        for app in self.apps:
            self.files[f"{self._proxy(app)}/proxy.log"] = ""

    def _pardon(self) -> None:
        """Takes the recorded denial out."""
        self.objects = [o for o in self.objects if o["kind"] != "AuthorizationPolicy"]
        for manager in self.inbound_managers("ratings"):
            manager["http_filters"] = [f for f in manager["http_filters"] if "rbac" not in f["name"]]

    # --- where things are

    @property
    def apps(self) -> dict[str, str]:
        """Application to pod name."""
        found = {}
        for path in self.files:
            if path.startswith(f"proxies/{NAMESPACE}/") and path.endswith("config_dump.json"):
                pod = path.split("/")[2]
                name = pod.rsplit("-", 2)[0]
                found[name if name.startswith("reviews") else name.removesuffix("-v1")] = pod
        return found

    def _proxy(self, app: str) -> str:
        return f"proxies/{NAMESPACE}/{self.apps[app]}"

    def _section(self, app: str, kind: str) -> Json:
        for section in self.files[f"{self._proxy(app)}/config_dump.json"]["configs"]:
            if section["@type"].endswith(f".{kind}"):
                return section  # type: ignore[no-any-return]
        raise KeyError(kind)

    def object(self, kind: str, name: str, namespace: str = NAMESPACE) -> Json:
        for found in self.objects:
            meta = found["metadata"]
            if (found["kind"], meta["name"], meta.get("namespace", namespace)) == (kind, name, namespace):
                return found
        raise KeyError(f"{kind} {name}")

    def pod(self, app: str) -> Json:
        return self.object("Pod", self.apps[app])

    def ip(self, app: str) -> str:
        return str(self.pod(app)["status"]["podIP"])

    def service_ip(self, service: str) -> str:
        return str(self.object("Service", service)["spec"]["clusterIP"])

    def clusters(self, app: str) -> list[Json]:
        return [
            entry["cluster"] for entry in self._section(app, "ClustersConfigDump")["dynamic_active_clusters"]
        ]

    def cluster(self, app: str, name: str) -> Json:
        return next(found for found in self.clusters(app) if found["name"] == name)

    def add_cluster(self, app: str, cluster: Json) -> None:
        self._section(app, "ClustersConfigDump")["dynamic_active_clusters"].append({"cluster": cluster})

    def remove_cluster(self, app: str, name: str) -> None:
        section = self._section(app, "ClustersConfigDump")
        section["dynamic_active_clusters"] = [
            e for e in section["dynamic_active_clusters"] if e["cluster"]["name"] != name
        ]
        self.statuses(app)[:] = [status for status in self.statuses(app) if status["name"] != name]
        section = self._section(app, "EndpointsConfigDump")
        section["dynamic_endpoint_configs"] = [
            e for e in section["dynamic_endpoint_configs"] if e["endpoint_config"]["cluster_name"] != name
        ]

    def routes(self, app: str, name: str = "9080") -> Json:
        for entry in self._section(app, "RoutesConfigDump")["dynamic_route_configs"]:
            if entry["route_config"]["name"] == name:
                return dict(entry)["route_config"]  # type: ignore[no-any-return]
        raise KeyError(name)

    def virtual_host(self, app: str, host: str, port: int = 9080) -> Json:
        name = f"{host}.{NAMESPACE}.svc.cluster.local:{port}"
        return next(found for found in self.routes(app, str(port))["virtual_hosts"] if found["name"] == name)

    def listener(self, app: str, name: str) -> Json:
        for entry in self._section(app, "ListenersConfigDump")["dynamic_listeners"]:
            if entry["name"] == name:
                return dict(entry)["active_state"]["listener"]  # type: ignore[no-any-return]
        raise KeyError(name)

    def inbound_chains(self, app: str, port: int = 9080) -> list[Json]:
        chains = self.listener(app, "virtualInbound")["filter_chains"]
        return [chain for chain in chains if chain["filter_chain_match"].get("destination_port") == port]

    def inbound_managers(self, app: str, port: int = 9080) -> Iterator[Json]:
        for chain in self.inbound_chains(app, port):
            for found in chain["filters"]:
                if found["name"].endswith("http_connection_manager"):
                    yield found["typed_config"]

    def endpoints(self, app: str, cluster: str) -> list[Json]:
        """The lb_endpoints, to be changed in place."""
        for entry in self._section(app, "EndpointsConfigDump")["dynamic_endpoint_configs"]:
            if entry["endpoint_config"]["cluster_name"] == cluster:
                for locality in entry["endpoint_config"].setdefault("endpoints", []):
                    return locality["lb_endpoints"]  # type: ignore[no-any-return]
        raise KeyError(cluster)

    def statuses(self, app: str) -> list[Json]:
        return self.files[f"{self._proxy(app)}/clusters.json"]["cluster_statuses"]  # type: ignore[no-any-return]

    def hosts(self, app: str, cluster: str) -> list[Json]:
        """The host_statuses of /clusters, to be changed in place."""
        status = next(found for found in self.statuses(app) if found["name"] == cluster)
        return status.setdefault("host_statuses", [])  # type: ignore[no-any-return]

    def secrets(self, app: str) -> list[Json]:
        return self._section(app, "SecretsConfigDump")["dynamic_active_secrets"]  # type: ignore[no-any-return]

    # --- what users write

    def add(
        self, kind: str, name: str, spec: Json, group: str = "networking.istio.io", namespace: str = NAMESPACE
    ) -> None:
        meta = {"name": name, "namespace": namespace, "creationTimestamp": "2026-11-23T12:20:00Z"}
        self.objects.append({"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "spec": spec})

    def peer_authentication(self, mode: str, app: str = "") -> None:
        """A mode for the namespace, or for one application, in the objects and in the chains as istiod writes them."""
        if app:
            labels = {"app": app.partition("-v")[0]}
            self.add(
                "PeerAuthentication",
                app,
                {"selector": {"matchLabels": labels}, "mtls": {"mode": mode}},
                "security.istio.io",
            )
        else:
            self.object("PeerAuthentication", "default")["spec"]["mtls"]["mode"] = mode
        for one in [name for name in self.apps if not app or name == app]:
            self._inbound(one, mode)

    def _inbound(self, app: str, mode: str) -> None:
        chains = self.listener(app, "virtualInbound")["filter_chains"]
        for port in {c["filter_chain_match"].get("destination_port") for c in chains} - {None, 15006}:
            at = next(
                i for i, c in enumerate(chains) if c["filter_chain_match"].get("destination_port") == port
            )
            chain = chains[at]
            plain = copy.deepcopy(chain)
            plain.pop("transport_socket", None)
            plain["filter_chain_match"] = {"destination_port": port, "transport_protocol": "raw_buffer"}
            if mode == "PERMISSIVE":
                match = {
                    "application_protocols": MESH_ALPN,
                    "destination_port": port,
                    "transport_protocol": "tls",
                }
                chain["filter_chain_match"] = match
                chains.insert(at + 1, plain)
            elif mode == "DISABLE":
                chains[at] = plain
        caught = [
            c
            for c in chains
            if c.get("name", "").startswith("virtualInbound") and "blackhole" not in c["name"]
        ]
        for chain in caught:
            plain = copy.deepcopy(chain)
            plain.pop("transport_socket", None)
            http = "catchall-http" in chain["name"]
            plain["filter_chain_match"] = {"transport_protocol": "raw_buffer"} | (
                {"application_protocols": ["http/1.1", "h2c"]} if http else {}
            )
            if mode in ("PERMISSIVE", "DISABLE"):
                chains.append(plain)
            if mode == "DISABLE":
                chains.remove(chain)
        for chain in chains:
            match = chain["filter_chain_match"]
            if mode == "PERMISSIVE" and match == {"transport_protocol": "tls"}:
                match["application_protocols"] = ["istio-peer-exchange", "istio"]

    def destination_rule(self, host: str, policy: Json, subsets: list[Json] | None = None) -> str:
        """The object; returns what istiod writes into the clusters' metadata."""
        spec: Json = {"host": host, "trafficPolicy": policy}
        if subsets:
            spec["subsets"] = subsets
        self.add("DestinationRule", host, spec)
        for app in self.apps:
            for cluster in self.clusters(app):
                if cluster["name"].endswith(f"|{host}.{NAMESPACE}.svc.cluster.local"):
                    path = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/destination-rule/{host}"
                    cluster["metadata"]["filter_metadata"]["istio"]["config"] = path
        return host

    def tls_mode(self, host: str, mode: str, **more: Any) -> None:
        """A DestinationRule with this TLS mode, in all clients."""
        self.destination_rule(host, {"tls": {"mode": mode, **more}})
        for app in self.apps:
            for cluster in self.clusters(app):
                if cluster["name"].endswith(f"|{host}.{NAMESPACE}.svc.cluster.local"):
                    matches = cluster.pop("transport_socket_matches", None)
                    if not matches:
                        continue
                    socket = copy.deepcopy(matches[0]["transport_socket"])
                    context = socket["typed_config"]
                    if mode == "SIMPLE":
                        context.pop("sni", None)
                        context["common_tls_context"].pop("tls_certificate_sds_secret_configs")
                        context["common_tls_context"].pop("alpn_protocols")
                        context["common_tls_context"]["combined_validation_context"] = {
                            "default_validation_context": {},
                            "validation_context_sds_secret_config": {
                                "name": "system",
                                "sds_config": {"api_config_source": {"api_type": "GRPC"}},
                            },
                        }
                    if mode != "DISABLE":
                        if "sni" in more:
                            context["sni"] = more["sni"]
                        cluster["transport_socket"] = socket

    def virtual_service(
        self, host: str, http: list[Json], routes: list[Json], clients: list[str] | None = None
    ) -> None:
        """The object and, in the clients' tables, the host's routes as istiod writes them, with metadata."""
        self.add("VirtualService", host, {"hosts": [host], "http": http})
        path = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtual-service/{host}"
        for app in clients or self.apps:
            found = copy.deepcopy(routes)
            for route in found:
                route["metadata"] = {"filter_metadata": {"istio": {"config": path}}}
            self.virtual_host(app, host)["routes"] = found

    def route(self, host: str, subset: str = "", **more: Any) -> Json:
        cluster = f"outbound|9080|{subset}|{host}.{NAMESPACE}.svc.cluster.local"
        return {
            "match": {"prefix": "/"},
            "route": {
                "cluster": cluster,
                "timeout": "0s",
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                    "num_retries": 2,
                },
                "max_grpc_timeout": "0s",
                **more,
            },
            "decorator": {"operation": f"{host}.{NAMESPACE}.svc.cluster.local:9080/*"},
        }

    # --- what proxies log

    def line(self, app: str, **fields: Any) -> None:
        """One access log line of a proxy."""
        self._lines.setdefault(app, []).append(fields)

    def envoy(self, app: str, text: str) -> None:
        """One message of Envoy's own in a proxy's log."""
        at = (self.captured_at - timedelta(seconds=7)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._lines.setdefault(app, []).append(f"{at}\t{text}")

    def call(
        self,
        client: str,
        service: str,
        server: str = "",
        *,
        count: int = 8,
        path: str = "/",
        seen: Json | None = None,
        told: Json | None = None,
        silent: bool = False,
        ago_s: float = 8.0,
        within: bool = False,
    ) -> None:
        """Requests as both proxies log them; `seen` overrides the client's fields, `told` the server's.

        `within`: they are made in the course of the requests of the call before, whose ids they carry on.
        """
        if within:
            self._tick -= count
        host = f"{service}.{NAMESPACE}.svc.cluster.local"
        behind = server or next(app for app in self.apps if app.startswith(service))
        for _ in range(count):
            self._tick += 1
            at = self.captured_at - timedelta(seconds=ago_s) + timedelta(milliseconds=20 * (self._tick % 300))
            at += timedelta(milliseconds=3) if within else timedelta()
            identity = f"00000000-0000-4000-8000-{self._tick:012d}"
            common = {
                "authority": f"{service}:9080",
                "bytes_received": 0,
                "bytes_sent": 90,
                "connection_termination_details": None,
                "duration": 3,
                "method": "GET",
                "path": path,
                "protocol": "HTTP/1.1",
                "request_id": identity,
                **OUTBOUND,
                "route_name": "default",
                "upstream_transport_failure_reason": None,
                "user_agent": "curl/7.88.1",
                "x_forwarded_for": None,
            }
            outbound = common | {
                "downstream_local_address": f"{self.service_ip(service)}:9080",
                "downstream_remote_address": f"{self.ip(client)}:{50000 + self._tick}",
                "requested_server_name": None,
                "start_time": at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
                "upstream_cluster": f"outbound|9080||{host}",
                "upstream_host": f"{self.ip(behind)}:9080" if behind in self.apps else None,
                "upstream_local_address": f"{self.ip(client)}:{40000 + self._tick}",
                "upstream_service_time": "3",
            }
            self.line(client, **(outbound | (seen or {})))
            if silent or behind not in self.apps:
                continue
            inbound = common | {
                "downstream_local_address": f"{self.ip(behind)}:9080",
                "downstream_remote_address": f"{self.ip(client)}:{40000 + self._tick}",
                "requested_server_name": f"outbound_.9080_._.{host}",
                "start_time": (at + timedelta(milliseconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
                "upstream_cluster": "inbound|9080||",
                "upstream_host": f"{self.ip(behind)}:9080",
                "upstream_local_address": "127.0.0.6:39012",
                "upstream_service_time": "2",
            }
            self.line(behind, **(inbound | (told or {})))

    def refused(
        self, server: str, remote: str, *, count: int = 8, sni: str | None = None, ago_s: float = 8.0
    ) -> None:
        """Connections that no filter chain of the server's takes, as its inbound listener logs them."""
        for _ in range(count):
            self._tick += 1
            at = self.captured_at - timedelta(seconds=ago_s) + timedelta(milliseconds=20 * (self._tick % 300))
            self.line(
                server,
                authority=None,
                bytes_received=0,
                bytes_sent=0,
                connection_termination_details=None,
                downstream_local_address=f"{self.ip(server)}:9080",
                downstream_remote_address=f"{remote}:{40000 + self._tick}",
                duration=0,
                method=None,
                path=None,
                protocol=None,
                request_id=None,
                requested_server_name=sni,
                response_code=0,
                response_code_details="filter_chain_not_found",
                response_flags="NR",
                route_name=None,
                start_time=at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
                upstream_cluster=None,
                upstream_host=None,
                upstream_local_address=None,
                upstream_service_time=None,
                upstream_transport_failure_reason=None,
                user_agent=None,
                x_forwarded_for=None,
            )

    def quiet_traffic(self) -> None:
        """What bookinfo does all the time, without a failure."""
        for client, service, server in (
            ("client", "productpage", "productpage"),
            ("productpage", "details", "details"),
            ("productpage", "reviews", "reviews-v1"),
            ("productpage", "reviews", "reviews-v2"),
            ("reviews-v2", "ratings", "ratings"),
        ):
            self.call(client, service, server, count=3, path=f"/{service}")

    def without(self, app: str) -> None:
        """The proxy can't be read."""
        prefix = self._proxy(app) + "/"
        self.files = {path: data for path, data in self.files.items() if not path.startswith(prefix)}

    def log_as_text(self) -> None:
        """The lines in Istio's text format, with flags in the other order and Envoy's older words for a refusal."""
        for app, lines in self._lines.items():
            self._lines[app] = [line if isinstance(line, str) else _as_text(line) for line in lines]

    def write(self, path: Path) -> Path:
        for app, lines in self._lines.items():
            if app in self.apps:
                text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
                self.files[f"{self._proxy(app)}/proxy.log"] = "\n".join(text) + "\n"
        for name, data in self.files.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(data if isinstance(data, str) else json.dumps(data))
        if self.objects:
            (path / "kubernetes").mkdir(exist_ok=True)
            (path / "kubernetes" / "all.json").write_text(
                json.dumps({"apiVersion": "v1", "kind": "List", "items": self.objects})
            )
        return path


_TEXT = (
    '[{start_time}] "{method} {path} {protocol}" {response_code} {response_flags} {response_code_details} '
    '{connection_termination_details} "{upstream_transport_failure_reason}" {bytes_received} {bytes_sent} {duration} '
    '{upstream_service_time} "{x_forwarded_for}" "{user_agent}" "{request_id}" "{authority}" "{upstream_host}" '
    "{upstream_cluster} {upstream_local_address} {downstream_local_address} {downstream_remote_address} "
    "{requested_server_name} {route_name}"
)


def _as_text(line: Json) -> str:
    fields = {name: "-" if value is None else str(value) for name, value in line.items()}
    fields["response_flags"] = ",".join(reversed(fields["response_flags"].split(",")))
    old = "remote_connection_failure,delayed_connect_error:_111"
    details = fields["response_code_details"]
    fields["response_code_details"] = details.replace(
        "remote_connection_failure|delayed_connect_error:_Connection_refused", old
    )
    return _TEXT.format(**fields)
