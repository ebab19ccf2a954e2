"""The Service names its port for a protocol other than HTTP, and HTTP routes or policies are written for it.

Symptom
    Nothing fails. Timeouts, retries, weights, faults and header matches of a VirtualService have no effect, and no HTTP
    metrics or paths show up for the service. An ALLOW policy with paths or methods may deny everything.

Why it fails
    Istio takes the protocol from the port's `appProtocol`, else from its name's prefix. For `tcp`, `tls`, `https`, `mongo`,
    `mysql`, `redis` it carries bytes: the proxies never see a request, so nothing about requests applies. Of an
    AuthorizationPolicy, an ALLOW rule with HTTP fields is dropped on such a port, and a DENY rule loses those fields.

How meshscope knows
    The Service's port is named so, a VirtualService has `http` routes (or a policy has `methods`, `paths`, `hosts`) that can
    only be meant for it, and the callers' proxies that were read have a TCP listener there.

Fix
    If the application speaks HTTP, set `appProtocol: http` (or `http2`, `grpc`) on the port. If it doesn't, remove the HTTP
    configuration, or write it as `tcp` routes and ports.

References
    Istio: "Protocol Selection", AuthorizationPolicy (HTTP-only fields).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from meshscope.istio.kubernetes import dicts, match_labels, selects
from meshscope.istio.names import NETWORKING, SECURITY
from meshscope.istio.protocol import BYTES, protocol
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.model.kubernetes import KubernetesObject
from meshscope.rules.claims import CERTAIN, SEEN
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I057",
    cause="http-policy-on-tcp-port",
    title="The port is plain TCP to the mesh, so HTTP routing and policy on it are ignored",
    severity="warning",
    mesh="istio",
    inputs=("kubernetes", "config"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


HTTP_FIELDS = ("methods", "notMethods", "paths", "notPaths", "hosts", "notHosts")


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for service in facts.objects.services:
        ports = dicts(service.spec.get("ports"))
        opaque = [port for port in ports if protocol(port) in BYTES]
        if not opaque:
            continue
        host = facts.host(service)
        for route in facts.objects.of("VirtualService", NETWORKING):
            for port in _meant(route, host, opaque, everything=len(opaque) == len(ports)):
                yield from _claim(facts, service, host, port, route, "http routes")
        for policy in facts.objects.of("AuthorizationPolicy", SECURITY, service.metadata.namespace):
            if _selects_service(facts, policy, service):
                for port in _policed(policy, opaque, everything=len(opaque) == len(ports)):
                    yield from _claim(facts, service, host, port, policy, "rules with HTTP fields")


def _meant(
    route: KubernetesObject, host: str, opaque: list[dict[str, Any]], *, everything: bool
) -> list[dict[str, Any]]:
    """The TCP ports that a VirtualService's HTTP routes can only be meant for."""
    gateways = route.spec.get("gateways")
    hosts = route.spec.get("hosts")
    named = (
        [qualified(str(one), route.metadata.namespace, host) for one in hosts]
        if isinstance(hosts, list)
        else []
    )
    rules = dicts(route.spec.get("http"))
    if host not in named or not rules or (isinstance(gateways, list) and gateways and "mesh" not in gateways):
        return []
    wanted = {match.get("port") for rule in rules for match in dicts(rule.get("match"))} - {None}
    return [port for port in opaque if port.get("port") in wanted or (everything and not wanted)]


def qualified(name: str, namespace: str, like: str) -> str:
    """A host as a mesh object of a namespace writes it, in full."""
    return name if "." in name else f"{name}.{namespace}.svc.{like.partition('.svc.')[2]}"


def _selects_service(facts: Facts, policy: KubernetesObject, service: KubernetesObject) -> bool:
    wanted = match_labels(policy.spec)
    pods = facts.objects.pods_selected(service)
    return bool(wanted) and bool(pods) and all(selects(wanted, pod.metadata.labels) for pod in pods)


def _policed(
    policy: KubernetesObject, opaque: list[dict[str, Any]], *, everything: bool
) -> list[dict[str, Any]]:
    """The TCP ports for which a policy has rules with HTTP fields."""
    found: list[dict[str, Any]] = []
    for rule in dicts(policy.spec.get("rules")):
        for to in dicts(rule.get("to")):
            operation = to.get("operation")
            if not isinstance(operation, dict) or not any(operation.get(field) for field in HTTP_FIELDS):
                continue
            listed = operation.get("ports")
            ports = {str(port) for port in listed} if isinstance(listed, list) else set()
            found += [
                port
                for port in opaque
                if str(port.get("targetPort", port.get("port"))) in ports or (everything and not ports)
            ]
    return found[:1]


def _claim(
    facts: Facts,
    service: KubernetesObject,
    host: str,
    port: dict[str, Any],
    ignored: KubernetesObject,
    what: str,
) -> Iterable[Claim]:
    number = port.get("port")
    if not isinstance(number, int):
        return
    said = f"port {number}: name {port.get('name') or '-'}, appProtocol {port.get('appProtocol') or '-'}"
    listeners = tuple(tcp_listeners(facts, service, number))
    at = dicts(service.spec.get("ports")).index(port)
    patch = f'[{{"op":"add","path":"/spec/ports/{at}/appProtocol","value":"http"}}]'
    yield Claim(
        rule=RULE,
        subject=ignored.ref,
        stage=Stage.OUTBOUND_LISTENER,
        discriminator=f"{host}:{number}",
        title=f"{service.metadata.name}.{service.metadata.namespace}:{number} is plain TCP to the mesh: "
        f"the {ignored.kind} {ignored.metadata.name} has no effect on it",
        explanation=f"{ignored.ref} has {what} for {host}, but the Service says that port {number} is "
        f"{protocol(port)}: the proxies carry bytes and never see a request",
        evidence=(
            Evidence("kubernetes", str(service.ref), said),
            Evidence("kubernetes", str(ignored.ref), what),
            *listeners[:2],
        ),
        fix=(
            Fix(
                "command",
                f"kubectl patch service {service.metadata.name} -n {service.metadata.namespace} "
                f"--type json -p '{patch}'",
                "the mesh parses the port as HTTP: right only if the application speaks it",
            ),
        ),
        confidence=CERTAIN if listeners else SEEN,
        affected=(f"{host}:{number}",),
        ruled_out=(RuledOut("no-matching-route", "the traffic passes, no route is asked"),),
    )


def tcp_listeners(facts: Facts, service: KubernetesObject, port: int) -> Iterator[Evidence]:
    """What the proxies that were read have for the Service's own address: a filter chain that is a TCP proxy alone."""
    addresses = service.spec.get("clusterIPs") or [service.spec.get("clusterIP")]
    for proxy in facts.proxies:
        config = facts.config(proxy)
        for address in addresses if config is not None and isinstance(addresses, list) else ():
            listener = config.listeners.get(f"{address}_{port}") if config is not None else None
            if listener is None or any(
                chain.network_filter("HttpConnectionManager") for chain in listener.filter_chains
            ):
                continue
            where = f"{proxy.path(Part.CONFIG_DUMP)}: listener {listener.name}"
            yield Evidence(f"proxy {proxy.id}", where, "tcp_proxy, no http_connection_manager")
