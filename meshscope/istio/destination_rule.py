"""Decides which DestinationRules are in force for a caller, and what TLS they make its sidecar use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from meshscope.istio.kubernetes import Objects, dicts, match_labels, selects
from meshscope.istio.names import NETWORKING, service_host
from meshscope.istio.peer_authentication import effective
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef

TlsMode = Literal["AUTO", "DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]
TLS_MODE_LABEL = "security.istio.io/tlsMode"


class ClientTls(Struct, frozen=True):
    """The TLS mode of a caller's sidecar for one destination; AUTO where no rule sets one (auto mTLS decides)."""

    mode: TlsMode
    decided_by: ObjectRef | None = None
    sni: str = ""


class Caller(Struct, frozen=True):
    """Who calls: DestinationRules bear on a namespace, or on pods with labels."""

    namespace: str
    labels: dict[str, str] = {}


def client_tls(objects: Objects, caller: Caller, host: str, port: int, subset: str = "") -> ClientTls:
    """The mode in force for `port` of the host (an FQDN): subset over destination, a port's settings over both.

    A port's settings replace the others as a whole: without `tls` in them auto mTLS is back
    (DestinationRule, TrafficPolicy.PortTrafficPolicy).
    """
    rules = in_force(objects, caller, host)
    found = next(((rule, p) for rule in rules if (p := _mapped(rule.spec.get("trafficPolicy")))), None)
    tls, by = _of_port(found[1], port, None) if found else None, found[0] if found else None
    for rule in rules if subset else ():
        for entry in dicts(rule.spec.get("subsets")):
            if entry.get("name") == subset and (policy := _mapped(entry.get("trafficPolicy"))):
                changed = _of_port(policy, port, tls)
                tls, by = changed, rule if changed is not tls else by
    if tls is None or by is None:
        return ClientTls("AUTO" if objects.mesh_config().get("enableAutoMtls") is not False else "DISABLE")
    mode = tls.get("mode")
    sni = tls.get("sni")
    modes: dict[str, TlsMode] = {"SIMPLE": "SIMPLE", "MUTUAL": "MUTUAL", "ISTIO_MUTUAL": "ISTIO_MUTUAL"}
    return ClientTls(modes.get(str(mode), "DISABLE"), by.ref, sni if isinstance(sni, str) else "")


def in_force(objects: Objects, caller: Caller, host: str) -> tuple[KubernetesObject, ...]:
    """The rules for a host as one caller hears of them, the oldest first; istiod merges them into one.

    Of the caller's namespace, else of the service's, else of the root namespace; there, an exact host beats a
    wildcard. Rules of other namespaces count where they are exported to the caller's.
    """
    named = service_host(host)
    spaces = (caller.namespace, named.namespace if named else "", objects.root_namespace)
    for namespace in dict.fromkeys(space for space in spaces if space):
        fitting = [
            (pattern, rule)
            for rule in objects.of("DestinationRule", NETWORKING, namespace)
            if (pattern := _pattern(rule, host)) is not None and _exported(objects, rule, caller.namespace)
        ]
        chosen = [
            rule for pattern, rule in fitting if pattern == max((p for p, _ in fitting), key=_exactness)
        ]
        rules = sorted(chosen, key=lambda rule: (rule.metadata.creationTimestamp, rule.metadata.name))
        ours = tuple(_selecting(rules, caller, namespace))
        if ours:
            return ours
    return ()


def auto_mtls(objects: Objects, pod: KubernetesObject, port: int) -> bool:
    """Whether auto mTLS uses mesh TLS to a pod's port: it is labelled as able, and its policy isn't DISABLE."""
    labelled = pod.metadata.labels.get(TLS_MODE_LABEL) == "istio"
    return labelled and effective(objects, pod, port).mode != "DISABLE"


def _selecting(
    rules: Iterable[KubernetesObject], caller: Caller, namespace: str
) -> Iterator[KubernetesObject]:
    """Rules for the caller's own pods alone, where there are any; else those without selector."""
    rules = tuple(rules)
    own = [
        rule
        for rule in rules
        if (wanted := _workload_selector(rule))
        and namespace == caller.namespace
        and selects(wanted, caller.labels)
    ]
    yield from own or [rule for rule in rules if not _workload_selector(rule)]


def _workload_selector(rule: KubernetesObject) -> dict[str, str]:
    return match_labels({"selector": rule.spec.get("workloadSelector")})


def _of_port(policy: Mapping[str, Any], port: int, inherited: dict[str, Any] | None) -> dict[str, Any] | None:
    for settings in dicts(policy.get("portLevelSettings")):
        if _mapped(settings.get("port")).get("number") == port:
            return _mapped(settings.get("tls")) or None
    return policy["tls"] if isinstance(policy.get("tls"), dict) else inherited


def _pattern(rule: KubernetesObject, host: str) -> str | None:
    """The rule's host, fully qualified, where it takes this one."""
    written = rule.spec.get("host")
    if not isinstance(written, str) or not written:
        return None
    pattern = written
    if "." not in written and not written.startswith("*"):
        pattern = f"{written}.{rule.metadata.namespace}.svc.{host.partition('.svc.')[2] or 'cluster.local'}"
    if pattern.startswith("*"):
        return pattern if host.endswith(pattern[1:]) else None
    return pattern if pattern == host else None


def _exactness(pattern: str) -> tuple[bool, int]:
    return not pattern.startswith("*"), len(pattern)


def _exported(objects: Objects, rule: KubernetesObject, namespace: str) -> bool:
    if rule.metadata.namespace == namespace:
        return True
    to = rule.spec.get("exportTo") or objects.mesh_config().get("defaultDestinationRuleExportTo") or ["*"]
    return isinstance(to, list) and ("*" in to or namespace in to)


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
