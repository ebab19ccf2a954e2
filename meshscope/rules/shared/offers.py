"""What the rules about a client's offer share: how a server that doesn't take it shows at each side, and what to change."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from meshscope.facts.symptoms import Symptom, is_tcp
from meshscope.istio.destination_rule import Caller, client_tls
from meshscope.istio.injection import Injection, injection
from meshscope.istio.kubernetes import dicts, finished
from meshscope.model.findings import Fix, Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef, WorkloadId
from meshscope.rules.claims import LIKELY, Shown, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Moved, Predicted
from meshscope.walk.hops import Stage
from meshscope.walk.transport import Offer

INTENDED = 0.85
"""A decision that Kubernetes objects make, because the deciding proxy wasn't read, together with its effect now."""

BEFORE_THE_APPLICATION = "the server's sidecar refuses before the application is reached"

_CAUSES = (
    "client-plaintext-server-strict",
    "client-without-sidecar-server-strict",
    "auto-mtls-endpoint-not-labelled",
    "client-mtls-server-disable",
    "tls-without-istio-alpn",
    "sni-matches-no-filter-chain",
)
"""The causes by which no filter chain takes a connection."""


class Mismatch(msgspec.Struct, frozen=True):
    """An edge on which the server doesn't take what the client offers, as the walk predicts, and what shows it."""

    edge: EdgeFacts
    shown: Shown
    found: Predicted

    @property
    def offer(self) -> Offer | None:
        offered = self.found.branch.at(Stage.TLS_OFFER)
        made = (offered or self.found.hop).detail.get("offer") or self.found.hop.detail.get("offer")
        return made if isinstance(made, Offer) else None

    @property
    def rule(self) -> ObjectRef | None:
        """The DestinationRule behind the client's offer."""
        offered = self.found.branch.at(Stage.TLS_OFFER)
        return offered.kubernetes if offered is not None else None

    @property
    def policy(self) -> ObjectRef | None:
        """The PeerAuthentication in force at the server."""
        behind = self.found.hop.kubernetes
        return behind if behind is not None and behind.kind == "PeerAuthentication" else None

    @property
    def endpoint(self) -> str:
        """IP:PORT of the server."""
        return str(self.found.hop.detail.get("endpoint") or "")

    @property
    def at_most(self) -> float:
        """The confidence that a decision partly read off Kubernetes deserves."""
        told = [hop.detail.get("intended") for hop in self.found.branch.hops]
        return INTENDED if any(told) else 1.0

    @property
    def part(self) -> str:
        """How much of the edge it concerns, for a sentence: nothing where all of it."""
        return "" if self.found.share > 0.99 else f" ({self.found.share:.0%} of the connections)"


def mismatches(facts: Facts, cause: str, shown: dict[str, object]) -> Iterator[Mismatch]:
    """The edges on which the walk predicts the cause, one for each DestinationRule and server behind it.

    `shown` are the arguments of `shown_by`. Where a log tells of the edge, counters alone show nothing: they count
    other edges too.
    """
    for edge in facts.edges:
        predicted = edge.predicted(cause)
        if not predicted:
            continue
        seen = shown_by(edge, **shown)  # type: ignore[arg-type]  # keywords of shown_by, each rule's own table
        if (edge.client_seen or edge.server_seen) and not any(s.from_log for s in seen.symptoms):
            continue
        told: dict[str, Mismatch] = {}
        for found in predicted:
            one = Mismatch(edge, seen, found)
            key = f"{one.rule} {one.policy} {facts.workload_at(one.endpoint)}"
            known = told.get(key)
            if known is None:
                told[key] = one
            elif known.found.walk is found.walk:
                joined = msgspec.structs.replace(known.found.branch, share=known.found.share + found.share)
                told[key] = Mismatch(edge, seen, msgspec.structs.replace(known.found, branch=joined))
        yield from told.values()


# --- what shows -------------------------------------------------------------------------------------------------


def closed_early(symptom: Symptom) -> bool:
    """The server closed the connection before any answer, without a reason: a plaintext client sees no more."""
    if symptom.failure_reason:
        return False
    if symptom.example is not None and is_tcp(symptom.example):
        return symptom.example.bytes_sent == 0
    return symptom.has("UC")


def no_filter_chain(symptom: Symptom) -> bool:
    """The server's proxy found no filter chain for the connection."""
    return "filter_chain_not_found" in (symptom.details, symptom.termination)


def _reason(symptom: Symptom) -> str:
    return (symptom.failure_reason or symptom.details).replace(" ", "_")


def reset_in_handshake(symptom: Symptom) -> bool:
    """The server closed while the client was shaking hands."""
    told = _reason(symptom)
    return "TLS_error" in told and ("reset_by_peer" in told or "CLOSED" in told)


def answered_in_plaintext(symptom: Symptom) -> bool:
    """What came back on the client's TLS hello wasn't TLS, or nothing came back in time."""
    told = _reason(symptom)
    return "WRONG_VERSION_NUMBER" in told or ("connection_timeout" in told and "TLS" not in told)


def read_as_http(symptom: Symptom) -> bool:
    """The server's proxy took the first bytes of TLS for HTTP."""
    return symptom.has("DPE") and "codec_error" in symptom.details


CLOSED: dict[str, object] = {
    "client": closed_early,
    "server": no_filter_chain,
    "client_stats": ("upstream_cx_destroy_remote_with_active_rq", "upstream_rq_5xx"),
    "server_stats": (("listener", "no_filter_chain_match"),),
}
"""How plaintext to a server that demands mTLS shows."""

AFTER_CONNECTING = (
    "upstream_cx_connect_fail",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_5xx",
    "ssl_connection_error",
)

UNMATCHED: dict[str, object] = {
    "client": reset_in_handshake,
    "server": no_filter_chain,
    "client_stats": AFTER_CONNECTING,
    "server_stats": (("listener", "no_filter_chain_match"),),
}
"""How TLS that no filter chain takes shows."""

NOT_TLS: dict[str, object] = {"client": answered_in_plaintext, "client_stats": AFTER_CONNECTING}
"""How TLS to something that speaks none shows."""


def unknown_servers(facts: Facts) -> Iterator[tuple[EdgeFacts, Shown]]:
    """Edges whose callers' TLS gets a plaintext answer from an address of which nothing is known."""
    for edge in facts.edges:
        shown = shown_by(edge, client=lambda s: "WRONG_VERSION_NUMBER" in _reason(s))
        if not shown:
            continue
        answered = {entry.upstream_host for symptom in shown.symptoms for entry in symptom.entries}
        chains = [branch.at(Stage.FILTER_CHAIN) for walk in edge.walks for branch in walk.branches]
        if any(hop is not None and hop.detail.get("endpoint") in answered for hop in chains):
            chains = [hop for hop in chains if hop is not None and hop.detail.get("endpoint") in answered]
        if chains and all(hop is not None and hop.outcome == "unknown" for hop in chains):
            yield edge, shown


class Unseen(msgspec.Struct, frozen=True):
    """A server that turns connections away now, while nothing tells who makes them."""

    server: ObjectRef
    moved: tuple[Moved, ...]
    confidence: float


def unseen_callers(facts: Facts, stat: str, *causes: str) -> Iterator[Unseen]:
    """Servers whose listener counted `stat`, where no edge with one of the causes accounts for it."""
    for proxy in facts.proxies:
        moved = tuple(facts.moved(proxy, "listener", stat).values())
        if not moved or any(
            proxy in edge.server_proxies and (edge.predicted(*causes) or edge.on("server"))
            for edge in facts.edges
        ):
            continue
        yield Unseen(facts.workload(proxy), moved, LIKELY)


def turned_away(facts: Facts) -> Iterator[Unseen]:
    """Servers whose listener has no filter chain for connections of which nothing more is known."""
    for unseen in unseen_callers(facts, "no_filter_chain_match", *_CAUSES):
        if all(isinstance(moved.proxy.log, Unavailable) for moved in unseen.moved):
            yield unseen


# --- what Kubernetes says --------------------------------------------------------------------------------------


def injection_of(facts: Facts, workload: WorkloadId) -> Injection | None:
    """Whether the workload's pods, which have no sidecar, should have one; None where nothing is known of them."""
    objects = facts.objects
    pods = [pod for pod in objects.pods_of(workload) if objects.has_proxy(pod) == "none"]
    return injection(objects, pods[0]) if pods and not objects.is_ambient(pods[0]) else None


def without_sidecar(facts: Facts, verdict: str = "wanted") -> dict[WorkloadId, list[KubernetesObject]]:
    """Workloads with pods that have no sidecar although they should (`wanted`), or because they `opted out`."""
    objects = facts.objects
    found: dict[WorkloadId, list[KubernetesObject]] = {}
    for pod in objects.pods:
        if finished(pod) or pod.metadata.deletionTimestamp or objects.has_proxy(pod) != "none":
            continue
        if objects.is_ambient(pod) or injection(objects, pod).verdict != verdict:
            continue
        found.setdefault(objects.workload_of(pod), []).append(pod)
    return found


def pod_label(facts: Facts, endpoint: str, label: str) -> str:
    """A label of the pod at IP:PORT."""
    pod = facts.objects.pod_by_ip(endpoint.rpartition(":")[0].strip("[]"))
    return pod.metadata.labels.get(label, "") if pod is not None else ""


def rule_of_callers(facts: Facts, workload: ObjectRef, mode: str) -> ObjectRef | None:
    """The DestinationRule that makes callers in the workload's own namespace use this TLS mode to it."""
    objects = facts.objects
    pods = objects.pods_of(WorkloadId(workload.namespace, workload.name, workload.kind))
    for service in objects.services_selecting(pods[0]) if pods else ():
        host = facts.whole.fqdn(service.ref)
        for port in dicts(service.spec.get("ports")):
            number = port.get("port")
            if isinstance(number, int):
                tls = client_tls(objects, Caller(workload.namespace), host, number)
                if tls.mode == mode:
                    return tls.decided_by
    return None


def addresses(shown: Shown) -> str:
    """The callers' addresses in the lines that show it, a few of them."""
    told = {
        entry.downstream_remote_address.rpartition(":")[0]
        for symptom in shown.symptoms
        for entry in symptom.entries
    }
    return ", ".join(sorted(filter(None, told))[:3]) or "an unknown address"


# --- fixes ------------------------------------------------------------------------------------------------------


def use_mesh_tls(rule: ObjectRef | None, host: str) -> tuple[Fix, ...]:
    """Lets a DestinationRule's callers use the mesh's own TLS."""
    effect = "every caller of the host that this DestinationRule applies to uses mTLS again"
    if rule is None or rule.kind != "DestinationRule":
        text = f"let the callers of {host} use ISTIO_MUTUAL, or remove what sets their TLS mode"
        return (Fix("advice", text, effect),)
    patch = '{"spec":{"trafficPolicy":{"tls":{"mode":"ISTIO_MUTUAL","sni":null,"caCertificates":null}}}}'
    command = f"kubectl patch destinationrule {rule.name} -n {rule.namespace} --type merge -p '{patch}'"
    more = "a port's or subset's own tls settings in it need the same"
    return (Fix("command", command, f"{effect}; {more}"),)


def leave_to_auto_mtls(rule: ObjectRef | None, host: str) -> tuple[Fix, ...]:
    """Removes a DestinationRule's TLS settings, so that auto mTLS decides endpoint by endpoint."""
    if rule is None or rule.kind != "DestinationRule":
        return (Fix("advice", f"remove what makes the callers of {host} use TLS", "auto mTLS decides again"),)
    patch = '{"spec":{"trafficPolicy":{"tls":null}}}'
    command = f"kubectl patch destinationrule {rule.name} -n {rule.namespace} --type merge -p '{patch}'"
    effect = "auto mTLS decides again: TLS to endpoints that can, plaintext to those that can't"
    return (Fix("command", command, effect),)


def set_mode(policy: ObjectRef | None, mode: str, effect: str) -> tuple[Fix, ...]:
    """Changes the mode of the PeerAuthentication in force."""
    if policy is None:
        return ()
    patch = f'{{"spec":{{"mtls":{{"mode":"{mode}"}}}}}}'
    where = f"-n {policy.namespace}"
    command = f"kubectl patch peerauthentication {policy.name} {where} --type merge -p '{patch}'"
    return (Fix("command", command, effect),)
