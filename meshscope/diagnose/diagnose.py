"""The main job: from a mesh and a question to a report."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from meshscope.diagnose.ranking import Symptoms, candidates, decide, finding
from meshscope.facts.consequences import consequences
from meshscope.facts.edges import DEFAULT_WINDOW_S, EdgeKey, ObservedEdge, observe
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.facts.select import Selected, Selector, select
from meshscope.istio.kubernetes import finished
from meshscope.model.findings import Report, RuledOut, Unknown
from meshscope.model.names import ProxyId
from meshscope.rules.catalogue import catalogue
from meshscope.rules.facts import Facts, SharedFacts
from meshscope.rules.rule import Claim, LoadedRule

SCHEMA = 1


def diagnose(
    mesh: Mesh,
    source: Selector | None = None,
    target: Selector | None = None,
    *,
    require_mtls: bool = False,
    since_s: float | None = None,
) -> Report:
    """What is broken between FROM and TO, or anywhere; raises SelectionError for a name that isn't one thing's.

    `since_s`: how many seconds before the capture count as now. With FROM and TO only their proxies are read.
    """
    caller = select(mesh, source) if source is not None else None
    called = select(mesh, target) if target is not None else None
    window_s = since_s if since_s is not None else DEFAULT_WINDOW_S
    shared = gather(mesh, caller, called, window_s, require_mtls=require_mtls)
    claims, unknown = run(catalogue(), shared)
    standing, ruled_out = decide(candidates(claims, _symptoms(shared)))
    return Report(
        schema=SCHEMA,
        tool={"name": "meshscope", "version": version("meshscope")},
        captured_at=mesh.captured_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        scope=_scope(mesh, source, target, shared, window_s),
        findings=tuple(finding(candidate, mesh.cluster) for candidate in standing),
        ruled_out=_ruled_out(claims, ruled_out, {candidate.best.rule.cause for candidate in standing}),
        unknown=tuple(dict.fromkeys((*unknown, *_unread(mesh, shared), *mesh.unknowns))),
    )


def _symptoms(shared: SharedFacts) -> Symptoms:
    told = [(symptom, edge.edge) for edge in shared.observed for symptom in edge.symptoms]
    at = shared.mesh.captured_at
    return Symptoms(
        counts={symptom.id: symptom.count for symptom, _ in told},
        ages_s={symptom.id: (at - symptom.last).total_seconds() for symptom, _ in told if symptom.last},
        edges={symptom.id: edge for symptom, edge in told},
        consequences=shared.consequences,
    )


def gather(
    mesh: Mesh,
    caller: Selected | None,
    called: Selected | None,
    window_s: float,
    *,
    require_mtls: bool = False,
) -> SharedFacts:
    """The facts that the question needs: without FROM and TO, all there are."""
    proxies = tuple(_asked(mesh, caller, called))
    edges = observe(mesh, proxies, window_s)
    wanted = {key: edge for key, edge in edges.items() if _wanted(mesh, edge, caller, called)}
    if caller is not None and called is not None and not wanted:
        wanted = _unseen(mesh, caller, called)
    follows = consequences({**edges, **wanted}.values())
    needed = _with_sources(edges, wanted, follows)
    observed = tuple(needed[key] for key in sorted(needed))
    return SharedFacts(mesh, observed, follows, proxies, window_s, require_mtls)


def _asked(mesh: Mesh, caller: Selected | None, called: Selected | None) -> Iterable[Proxy]:
    if caller is None and called is None:
        return mesh.proxies.values()
    named = [*(caller.proxies if caller else ()), *(called.proxies if called else ())]
    if called is not None and called.service is not None:
        service = mesh.objects.get("Service", called.service.namespace, called.service.name)
        pods = mesh.objects.pods_selected(service) if service is not None else ()
        names = {(pod.metadata.namespace, pod.metadata.name) for pod in pods}
        named += [proxy for proxy in mesh.proxies.values() if (proxy.id.namespace, proxy.id.pod) in names]
    if caller is None or called is None:
        # One end is open: whoever talks to the named one is found in all the others' logs.
        return mesh.proxies.values()
    return dict.fromkeys(named)


def _wanted(mesh: Mesh, edge: ObservedEdge, caller: Selected | None, called: Selected | None) -> bool:
    if caller is not None and edge.key.client not in caller.callers(mesh):
        return False
    if called is None:
        return True
    if called.service is not None:
        service = mesh.objects.service_of_host(edge.key.host)
        if service is not None and service.ref == called.service:
            return True
    return any(proxy in edge.servers for proxy in called.proxies)


def _unseen(mesh: Mesh, caller: Selected, called: Selected) -> dict[EdgeKey, ObservedEdge]:
    """The edge that was asked for though no traffic was seen on it: the walk can still tell what would happen."""
    found: dict[EdgeKey, ObservedEdge] = {}
    services = [called.service] if called.service is not None else []
    if not services and called.workload is not None:
        pods = [mesh.pod(pod) for pod in mesh.workloads.get(called.workload, ())]
        services = [s.ref for pod in pods if pod for s in mesh.objects.services_selecting(pod)]
    for ref in dict.fromkeys(services):
        service = mesh.objects.get("Service", ref.namespace, ref.name)
        host = mesh.fqdn(ref)
        for port in (service.spec.get("ports") or ()) if service is not None else ():
            for workload in caller.callers(mesh):
                key = EdgeKey(workload, host, int(port.get("port", 0)))
                found[key] = ObservedEdge(mesh, key)
    return found


def _with_sources(
    edges: dict[EdgeKey, ObservedEdge],
    wanted: dict[EdgeKey, ObservedEdge],
    follows: dict[str, frozenset[str]],
) -> dict[EdgeKey, ObservedEdge]:
    """The wanted edges, and those whose symptoms theirs follow from."""
    found = dict(wanted)
    sources = {source for edge in wanted.values() for s in edge.symptoms for source in follows.get(s.id, ())}
    for key, edge in edges.items():
        if key not in found and any(symptom.id in sources for symptom in edge.symptoms):
            found[key] = edge
    return found


def run(rules: Iterable[LoadedRule], shared: SharedFacts) -> tuple[list[Claim], list[Unknown]]:
    """What the rules claim; a rule that breaks costs itself alone, and is told as unknown."""
    claims: list[Claim] = []
    unknown: list[Unknown] = []
    for loaded in rules:
        try:
            for answer in loaded.check(Facts(shared)):
                if isinstance(answer, Unknown):
                    unknown.append(answer)
                else:
                    claims.append(answer)
        except Exception as error:  # noqa: BLE001 - hostile input must not hide what the other rules found
            unknown.append(
                Unknown(
                    f"rule {loaded.rule.code} ({loaded.rule.cause})",
                    f"it failed on this input: {error!r}",
                    "please report it with a captured bundle",
                )
            )
    return claims, unknown


def _unread(mesh: Mesh, shared: SharedFacts) -> Iterable[Unknown]:
    """Sidecars that run and that the source doesn't have: what they saw is missing from every verdict.

    Where all proxies are asked about, all that are missing count: a caller that wasn't read may fail unseen.
    """
    everything = len(shared.proxies) == len(mesh.proxies)
    called = {edge.key.host for edge in shared.observed}
    missing = []
    for pod in mesh.objects.pods:
        identity = ProxyId(pod.metadata.namespace, pod.metadata.name)
        if identity in mesh.proxies or mesh.objects.has_proxy(pod) not in {"istio", "both"} or finished(pod):
            continue
        services = mesh.objects.services_selecting(pod)
        if everything or any(mesh.fqdn(service.ref) in called for service in services):
            missing.append(str(identity))
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        yield Unknown(
            f"the sidecars of {', '.join(missing[:5])}{more}",
            "they run, but nothing of them was read: what they decided and logged isn't known",
            "capture them too (pods/portforward to port 15000, pods/log)",
        )


def _ruled_out(claims: list[Claim], lost: list[RuledOut], standing: set[str]) -> tuple[RuledOut, ...]:
    named = [ruled for claim in claims for ruled in claim.ruled_out]
    unique: dict[str, RuledOut] = {}
    for ruled in (*named, *lost):
        if ruled.cause not in standing and ruled.cause != "unexplained-failure":
            unique.setdefault(ruled.cause, ruled)
    return tuple(unique.values())


def _scope(
    mesh: Mesh, source: Selector | None, target: Selector | None, shared: SharedFacts, window_s: float
) -> dict[str, Any]:
    return {
        "from": str(source) if source else "",
        "to": str(target) if target else "",
        "cluster": mesh.cluster,
        "meshes": list(mesh.source.capture.meshes),
        "proxies": len(shared.proxies),
        "edges": sum(1 for edge in shared.observed if not edge.idle),
        "window_s": window_s,
    }
