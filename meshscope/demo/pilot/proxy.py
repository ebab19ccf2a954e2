"""Everything one proxy gets: bootstrap, listeners, clusters, routes, endpoints and secrets."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshscope.demo.authority import Authorities
from meshscope.demo.pilot import bootstrap, clusters, inbound, outbound, routes
from meshscope.demo.pilot.registry import Registry
from meshscope.demo.spec import Json, Pod, Workload

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass(frozen=True)
class ProxyConfig:
    """Resources by name. A secret that is not delivered is missing."""

    bootstrap: Json
    listeners: dict[str, Json]
    clusters: dict[str, Json]
    routes: dict[str, Json]
    endpoints: dict[str, Json]
    secrets: dict[str, Json]


def proxy_config(
    registry: Registry,
    authorities: Authorities,
    workload: Workload,
    pod: Pod,
    sockets: Path,
) -> ProxyConfig:
    """Translate the mesh for one proxy, then apply the spec's patches; `sockets` holds the control plane's."""
    outbound_clusters, endpoints = clusters.outbound_clusters(registry, workload)
    listeners = [
        *outbound.outbound_listeners(registry, workload),
        outbound.virtual_outbound(registry, pod),
        inbound.virtual_inbound(registry, workload, pod),
    ]
    every_cluster = [
        *clusters.fixed_clusters(),
        *inbound.inbound_clusters(registry, workload, pod),
        *outbound_clusters,
    ]
    config = ProxyConfig(
        bootstrap=bootstrap.bootstrap(registry.spec, workload, pod, sockets),
        listeners=_named(listeners),
        clusters=_named(every_cluster),
        routes=routes.route_configurations(registry, workload),
        endpoints=endpoints,
        secrets=_secrets(registry, authorities, workload, pod),
    )
    _wait_for_secrets(config, workload.certificate_of(pod).fetch_timeout)
    _patch(config, registry, workload)
    return config


def _named(resources: Iterable[Json]) -> dict[str, Json]:
    return {str(resource["name"]): resource for resource in resources}


def _secrets(registry: Registry, authorities: Authorities, workload: Workload, pod: Pod) -> dict[str, Json]:
    wanted = workload.certificate_of(pod)
    account = wanted.service_account or workload.service_account
    identity = f"ns/{workload.namespace}/sa/{account}"
    found: dict[str, Json] = {}
    if wanted.delivered:
        issued = authorities.leaf(registry.spec, f"{workload.namespace}/{pod.name}", identity, wanted)
        found["default"] = {
            "@type": _SECRET,
            "name": "default",
            "tls_certificate": {
                "certificate_chain": {"inline_bytes": _base64(issued.chain)},
                "private_key": {"inline_bytes": _base64(issued.key)},
            },
        }
    if wanted.roots_delivered:
        trusted = {"inline_bytes": _base64(authorities.roots(registry.spec, wanted))}
        found["ROOTCA"] = {
            "@type": _SECRET,
            "name": "ROOTCA",
            "validation_context": {"trusted_ca": trusted},
        }
    return found


def _wait_for_secrets(config: ProxyConfig, timeout: str) -> None:
    for resource in (*config.listeners.values(), *config.clusters.values()):
        for source in _secret_sources(resource):
            source["initial_fetch_timeout"] = timeout


def _secret_sources(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "sds_config":
                yield value
            else:
                yield from _secret_sources(value)
    elif isinstance(node, list):
        for item in node:
            yield from _secret_sources(item)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _patch(config: ProxyConfig, registry: Registry, workload: Workload) -> None:
    tables: dict[str, dict[str, Json]] = {
        "bootstrap": {"bootstrap": config.bootstrap},
        "listener": config.listeners,
        "cluster": config.clusters,
        "route": config.routes,
        "endpoints": config.endpoints,
        "secret": config.secrets,
    }
    for patch in registry.spec.patches:
        if patch.proxies not in ("*", workload.key, workload.name):
            continue
        for name, resource in tables[patch.kind].items():
            if patch.name in ("*", name):
                patch.change(resource)
