"""istiod's /debug/syncz as the stand-in would answer it: what was sent to each proxy and what it accepted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from meshscope.demo.spec import ISTIO_VERSION, Json

if TYPE_CHECKING:
    from meshscope.demo.mesh import Proxy

_TYPES = {
    "cluster": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "listener": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "route": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "endpoint": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
}


@dataclass
class Delivery:
    """What was sent to one proxy: by kind the newest push, and every resource with its version."""

    pushes: dict[str, str] = field(default_factory=dict)  # kind → version and nonce
    times: dict[str, str] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)  # kind → the newest push that the proxy runs
    resources: dict[str, dict[str, str]] = field(default_factory=dict)  # kind → file → version

    def sent(self, kind: str, file: str, version: str) -> None:
        self.resources.setdefault(kind, {})[file] = version
        if not self.pushes.get(kind, "").startswith(version):
            self.pushes[kind] = f"{version}{uuid.uuid4()}"
            self.times[kind] = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def settle(self, running: Mapping[str, str]) -> bool:
        """Note what the proxy runs by now; whether that is everything it was sent."""
        kinds = [kind for kind in self.pushes if self.is_acknowledged(kind, running)]
        self.acked.update({kind: self.pushes[kind] for kind in kinds})
        return len(kinds) == len(self.pushes)

    def is_acknowledged(self, kind: str, running: Mapping[str, str]) -> bool:
        """Whether the proxy runs the newest version of every resource of the kind that it asked for."""
        return all(
            running[file] == version
            for file, version in self.resources.get(kind, {}).items()
            if file in running
        )


def syncz(
    proxies: Sequence[Proxy], deliveries: Mapping[str, Delivery], running: Mapping[str, str]
) -> list[Json]:
    """The answer's list, one entry a proxy. `running` is file → version, as the proxies reported it."""
    return [_entry(proxy, deliveries[proxy.key], running) for proxy in proxies]


def _entry(proxy: Proxy, delivery: Delivery, running: Mapping[str, str]) -> Json:
    resources: Json = {}
    entry: Json = {
        "cluster_id": "Kubernetes",
        "proxy": f"{proxy.pod.name}.{proxy.workload.namespace}",
        "proxy_type": "sidecar",
        "istio_version": ISTIO_VERSION,
    }
    for kind, type_url in _TYPES.items():
        sent = delivery.pushes.get(kind)
        if not sent:
            continue
        acknowledged = delivery.is_acknowledged(kind, running)
        acked = delivery.acked.get(kind, "")
        entry[f"{kind}_sent"] = sent
        entry[f"{kind}_acked"] = acked
        resources[type_url] = {"sent": sent, "acked": acked, "sentTime": delivery.times[kind]}
        if not acknowledged:
            refusal = _refusal(proxy, kind)
            if refusal:
                resources[type_url]["lastError"] = refusal
    entry["resources"] = resources
    return entry


def _refusal(proxy: Proxy, kind: str) -> str:
    """The proxy's reason for not taking the newest push: what it would have told istiod in its NACK."""
    fields = {"listener": "dynamic_listeners", "route": "dynamic_route_configs"}
    try:
        dump = json.loads(proxy.get("config_dump"))
        for section in dump["configs"]:
            for item in section.get(fields.get(kind, ""), []):
                details = item.get("error_state", {}).get("details")
                if details:
                    return str(details)
        # A refused cluster or endpoint is nowhere in the dump: the log has it.
        lines = proxy.log.read_text(errors="replace").splitlines()
    except (OSError, ValueError):
        return ""
    # As Envoy words it where resources come over REST.
    words = f"config for /v3/discovery:{kind}s rejected:"
    message = next((line for line in reversed(lines) if words in line), "")
    return message.partition(words)[2].split("\t")[0].strip()
