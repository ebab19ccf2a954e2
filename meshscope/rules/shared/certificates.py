"""What the rules about certificates share: how a rejected certificate shows at each side, and who is to blame."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from meshscope.envoy.certificates import Certificate, ChainFault
from meshscope.facts.proxy import Proxy
from meshscope.facts.symptoms import Symptom, is_tcp
from meshscope.model.findings import Evidence, Fix, RuledOut, Unavailable, Unknown
from meshscope.model.names import OUTSIDE, ObjectRef, ProxyId
from meshscope.rules.claims import COUNTED, LIKELY, PREDICTED, Matches, Shown, claims, shown_by
from meshscope.rules.facts import EdgeFacts, Facts, Moved, Predicted
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk import transport
from meshscope.walk.hops import Hop, Stage
from meshscope.walk.transport import Unsound

CLIENT_CAUSES = ("client-cert-expired", "client-cert-untrusted-by-server", "server-root-bundle-outdated")
"""What a server may find wrong with a client's certificate; its counters don't tell them apart."""

_ALERTS = ("ALERT_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE")
_AFTER_REFUSAL = ("upstream_cx_connect_fail", "upstream_rq_retry_limit_exceeded", "upstream_rq_5xx")
_AFTER_CLOSING = (
    "upstream_cx_destroy_remote_with_active_rq",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_5xx",
)


class Refusal(msgspec.Struct, frozen=True):
    """A certificate (or its absence) that one side doesn't take, on one edge.

    `found` is the walk's prediction, None where only the log tells; `subject` is the workload to blame and `pod` its
    pod, where it is known.
    """

    edge: EdgeFacts
    shown: Shown
    found: Predicted | None
    subject: ObjectRef
    pod: ProxyId | None = None
    healed: bool = False
    """Whether what the proxies hold now would be taken: the failures of the window may be over."""

    @property
    def at_most(self) -> float:
        return LIKELY if self.healed else 1.0

    @property
    def certificate(self) -> Certificate | None:
        found = self._detail("certificate")
        return found if isinstance(found, Certificate) else None

    @property
    def fault(self) -> ChainFault | None:
        found = self._detail("fault")
        return found if isinstance(found, ChainFault) else None

    @property
    def expected(self) -> tuple[str, ...]:
        """The names that the peer demands, where names are what is wrong."""
        found = self._detail("expected")
        return found if isinstance(found, tuple) else ()

    @property
    def actual(self) -> str:
        return str(self._detail("actual") or "")

    def _detail(self, name: str) -> object:
        return self.found.hop.detail.get(name) if self.found is not None else None

    @property
    def part(self) -> str:
        """How much of the edge it concerns, for a sentence: nothing where all of it."""
        if self.healed:
            return " (no more, by what the proxies hold now)"
        if self.found is None or self.found.share > 0.99:
            return ""
        return f" ({self.found.share:.0%} of the connections; retries may hide it)"

    @property
    def who(self) -> str:
        """The pod to blame, else the workload."""
        return f"pod {self.pod}" if self.pod is not None else str(self.subject)


# --- what shows -----------------------------------------------------------------------------------------------


def verification_failed(symptom: Symptom, *texts: str) -> bool:
    """Whether the client's proxy refused the server's certificate, for a reason that has one of these texts."""
    told = _reason(symptom)
    return "CERTIFICATE_VERIFY_FAILED" in told and any(text in told for text in texts)


def _reason(symptom: Symptom) -> str:
    return (symptom.failure_reason or symptom.details).replace(" ", "_")


def closed_by_server(symptom: Symptom) -> bool:
    """Whether the server may have closed for the client's certificate: with TLS 1.3 the client only sees the close."""
    if any(alert in symptom.failure_reason for alert in _ALERTS):
        return True
    if symptom.example is not None and is_tcp(symptom.example):
        return not symptom.failure_reason and symptom.example.bytes_sent == 0
    return symptom.has("UC") and not symptom.failure_reason and "connection_termination" in symptom.details


def _seen(
    edge: EdgeFacts,
    client: Matches,
    telling: tuple[str, ...],
    following: tuple[str, ...],
    server: tuple[tuple[str, str], ...] = (),
) -> Shown:
    """What shows a refusal: only the telling counters do so by themselves, those that follow are explained by them."""
    shown = shown_by(edge, client=client, client_stats=telling, server_stats=server)
    if not shown:
        return shown
    everything = shown_by(edge, client=client, client_stats=(*telling, *following))
    return msgspec.structs.replace(shown, symptoms=everything.symptoms)


# --- refusals on edges ----------------------------------------------------------------------------------------


def refused_servers(
    facts: Facts, cause: str, *texts: str, telling: tuple[str, ...] = ("ssl_fail_verify_error",)
) -> Iterator[Refusal]:
    """Edges on which the client's proxy refuses the server's certificate; its log names the reason (`texts`)."""
    fits = partial(_any_text, texts)
    for edge in facts.edges:
        shown = _seen(edge, fits, telling, _AFTER_REFUSAL)
        if not shown and not shown.blind:
            continue
        predicted = _by_blame(edge.predicted(cause))
        for blamed, found in predicted.items():
            yield Refusal(edge, shown, found, workload_of(facts, blamed), blamed)
        logged = [symptom for symptom in shown.symptoms if symptom.from_log]
        if logged and not predicted:
            yield Refusal(edge, shown, None, _called(facts, edge, logged[0]), healed=_accepted_now(edge))


def _accepted_now(edge: EdgeFacts) -> bool:
    """Whether every handshake that the walks come to succeeds with what the proxies hold now."""
    hops = [branch.at(Stage.TLS_ACCEPT) for one in edge.walks for branch in one.branches]
    return bool(hops) and all(hop is not None and hop.outcome == "pass" for hop in hops)


def _any_text(texts: tuple[str, ...], symptom: Symptom) -> bool:
    return verification_failed(symptom, *texts)


def refused_clients(
    facts: Facts, cause: str, *, server_stat: str = "ssl_fail_verify_error"
) -> Iterator[Refusal]:
    """Edges on which the server's proxy refuses the client's certificate, computed from both dumps."""
    for edge in facts.edges:
        predicted = _by_blame(edge.predicted(cause))
        if not predicted:
            continue
        shown = _seen(
            edge, closed_by_server, ("ssl_connection_error",), _AFTER_CLOSING, (("listener", server_stat),)
        )
        for blamed, found in predicted.items():
            yield Refusal(edge, shown, found, workload_of(facts, blamed), blamed)


def missing_secrets(
    facts: Facts, cause: str, client: Matches, *, client_stat: str = "", server_stat: str = ""
) -> Iterator[Refusal]:
    """Edges whose connections fail because a proxy never got its secret."""
    for edge in facts.edges:
        predicted = _by_blame(edge.predicted(cause))
        telling = (client_stat,) if client_stat else ("upstream_cx_connect_fail",)
        server = (("listener", server_stat),) if server_stat else ()
        shown = _seen(edge, client, telling, _AFTER_REFUSAL, server)
        for blamed, found in predicted.items():
            yield Refusal(edge, shown, found, workload_of(facts, blamed), blamed)


def _by_blame(predicted: tuple[Predicted, ...]) -> dict[ProxyId, Predicted]:
    """One prediction for each pod that is to blame, with the share of all its branches in one walk."""
    found: dict[ProxyId, Predicted] = {}
    for one in predicted:
        blamed = one.hop.detail.get("blame")
        if not isinstance(blamed, ProxyId):
            continue
        first = found.get(blamed)
        if first is None:
            found[blamed] = one
        elif first.walk is one.walk:
            joined = msgspec.structs.replace(first.branch, share=first.share + one.share)
            found[blamed] = msgspec.structs.replace(first, branch=joined)
    return found


def workload_of(facts: Facts, identity: ProxyId) -> ObjectRef:
    """The workload of a proxy, as a finding's subject."""
    facts.note("kubernetes")
    proxy = facts.whole.proxies.get(identity)
    return facts.workload(proxy) if proxy is not None else ObjectRef("Pod", identity.pod, identity.namespace)


def _called(facts: Facts, edge: EdgeFacts, symptom: Symptom) -> ObjectRef:
    """The workload that was called, by the address in the log; else the Service."""
    host = symptom.example.upstream_host if symptom.example is not None else ""
    workload = facts.workload_at(host) if host else OUTSIDE
    return workload.ref if workload != OUTSIDE else edge.server_subject


# --- what a proxy holds, whoever calls --------------------------------------------------------------------------


def unsound(facts: Facts, cause: str) -> Iterator[Unsound]:
    """Proxies whose own certificate most others wouldn't take for this cause, and that no failing edge accounts for.

    It is a current state: connections that exist go on, new ones fail.
    """
    blamed = {
        predicted.hop.detail.get("blame")
        for edge in facts.edges
        if edge.symptoms
        for predicted in edge.predicted(*transport.CERTIFICATE_CAUSES)
    }
    for proxy in facts.proxies:
        if proxy.id in blamed or facts.config(proxy) is None:
            continue
        found = transport.unsound(facts.whole, proxy, refused=bool(_refusals(facts, proxy)))
        if found is not None and found.cause == cause:
            yield found


_BROKEN_OFF = (
    ("listener", "ssl_connection_error"),
    ("listener", "server_ssl_socket_factory_downstream_context_secrets_not_ready"),
    ("cluster", "client_ssl_socket_factory_upstream_context_secrets_not_ready"),
)
"""Counters of handshakes that failed at this proxy for what it holds itself."""


def _refusals(facts: Facts, proxy: Proxy) -> tuple[Moved, ...]:
    found = (facts.moved(proxy, scope, stat).values() for scope, stat in _BROKEN_OFF)
    return tuple(one for moved in found for one in moved)


def _not_up(proxy: Proxy) -> tuple[Evidence, ...]:
    """That the proxy is still initializing: none of its listeners takes anything."""
    info = proxy.server_info
    if isinstance(info, Unavailable) or info.state in {"LIVE", "DRAINING", ""}:
        return ()
    return (Evidence(f"proxy {proxy.id}", proxy.path(Part.SERVER_INFO), f"state {info.state}"),)


def state_claim(
    rule: Rule,
    facts: Facts,
    found: Unsound,
    *,
    title: str,
    explanation: str,
    fix: tuple[Fix, ...],
    subject: ObjectRef | None = None,
) -> Claim:
    """The claim that a proxy's own state supports: an error where it fails now, else a warning."""
    moved = _refusals(facts, found.proxy)
    initializing = _not_up(found.proxy)
    workload = facts.workload(found.proxy)
    return Claim(
        rule=rule,
        subject=subject or workload,
        stage=Stage.TLS_ACCEPT,
        title=title,
        explanation=explanation,
        evidence=(*found.evidence, *initializing, *(one.evidence for one in moved[:2])),
        fix=fix,
        confidence=COUNTED if moved or initializing else PREDICTED,
        affected=(str(workload),),
        severity=None if moved or initializing else "warning",
    )


class Refusing(msgspec.Struct, frozen=True):
    """A server whose proxy refuses clients' certificates now, and no caller that was read accounts for it."""

    proxy: Proxy
    workload: ObjectRef
    moved: tuple[Moved, ...]
    lacking: tuple[Certificate, ...]
    """The roots that most others trust and it doesn't."""
    own: tuple[Certificate, ...]


def refusing_servers(facts: Facts, stat: str = "ssl_fail_verify_error") -> Iterator[Refusing]:
    """Servers that refuse callers of whom nothing was read, by this counter."""
    for proxy in facts.proxies:
        moved = tuple(facts.moved(proxy, "listener", stat).values())
        if not moved or any(
            proxy in edge.server_proxies and edge.predicted(*transport.CERTIFICATE_CAUSES)
            for edge in facts.edges
        ):
            continue
        lacking = transport.lacking_roots(facts.whole, proxy)
        yield Refusing(proxy, facts.workload(proxy), moved, lacking, transport.mesh_roots(proxy))


def refused_somewhere(facts: Facts) -> Iterator[Unknown]:
    """Callers that refuse some server's certificate now, while neither a log nor a server's dump says why."""
    for edge in facts.edges:
        moved = edge.client_moved("ssl_fail_verify_error", "ssl_fail_verify_san")
        if moved and not edge.on("client") and not edge.predicted(*transport.CERTIFICATE_CAUSES):
            yield Unknown(
                f"why {edge.edge} refuses a server's certificate ({moved[0].evidence.quote})",
                "retries hide it from the log, and no server's dump that was read has such a certificate",
                f"capture every proxy behind {edge.host}",
            )


# --- words and fixes -------------------------------------------------------------------------------------------


def restart(workload: ObjectRef, effect: str) -> Fix:
    """Restarts a workload: its new pods ask istiod for new certificates and the current roots."""
    where = f" -n {workload.namespace}" if workload.namespace else ""
    if workload.kind in {"Deployment", "StatefulSet", "DaemonSet"}:
        return Fix(
            "command", f"kubectl rollout restart {workload.kind.lower()} {workload.name}{where}", effect
        )
    if workload.kind == "Pod":
        return Fix("command", f"kubectl delete pod {workload.name}{where}", effect)
    return Fix("advice", f"restart the pods of {workload}", effect)


def look_at_secrets(pod: ProxyId | None) -> tuple[Fix, ...]:
    """Shows a proxy's certificates as istioctl does."""
    if pod is None:
        return ()
    return (Fix("command", f"istioctl proxy-config secret {pod.pod}.{pod.namespace}", "only shows"),)


def look_at_agent(pod: ProxyId | None) -> tuple[Fix, ...]:
    """Shows why a pod's agent gets no certificate."""
    if pod is None:
        return ()
    command = (
        f"kubectl logs {pod.pod} -n {pod.namespace} -c istio-proxy | grep -iE 'csr|citadel|sds|certificate'"
    )
    return (Fix("command", command, "only shows why the pod's agent gets no certificate"),)


def moment(certificate: Certificate | None, *, end: bool) -> str:
    """When a certificate's validity begins or ends, for a sentence; nothing where it isn't known."""
    if certificate is None:
        return ""
    at = certificate.not_after if end else certificate.not_before
    return at.strftime(" at %Y-%m-%dT%H:%M:%SZ")


# --- where one side wasn't read ---------------------------------------------------------------------------------

UNREAD_CALLER = ObjectRef("Workload", "unread-caller")
"""Who is refused when no proxy that was read is: one finding, however many servers refuse it."""


def by_refusing_servers(rule: Rule, facts: Facts, title: str, remedy: str) -> Iterator[Claim]:
    """What fits a server that refuses unread callers, beside other causes that fit as well."""
    for server in refusing_servers(facts):
        if server.lacking:
            continue
        yield Claim(
            rule=rule,
            subject=UNREAD_CALLER,
            stage=Stage.TLS_ACCEPT,
            title=f"a caller that wasn't read is refused: {title}",
            explanation=f"{server.proxy.id} refuses certificates now, and none of a caller that was read; its counters "
            f"don't tell why ({', '.join(cause for cause in CLIENT_CAUSES if cause != rule.cause)} fit as well): {remedy}",
            evidence=tuple(one.evidence for one in server.moved[:2]),
            fix=(Fix("advice", remedy),),
            confidence=LIKELY,
            affected=(str(server.workload),),
        )


def closed_by_unread(facts: Facts) -> Iterator[tuple[EdgeFacts, Shown]]:
    """Edges on which servers that weren't read close after the handshake, though others take the caller's certificate."""
    for edge in _unread_servers(facts):
        shown = _seen(edge, closed_by_server, ("ssl_connection_error",), _AFTER_CLOSING)
        broken_off = edge.client_moved("ssl_connection_error")
        if broken_off and any(symptom.from_log for symptom in shown.symptoms):
            yield edge, shown


def reset_by_unread(facts: Facts) -> Iterator[tuple[EdgeFacts, Shown]]:
    """Edges on which servers that weren't read reset the caller's handshake."""
    for edge in _unread_servers(facts):
        shown = shown_by(edge, client=lambda s: s.has("UF") and "Connection_reset_by_peer" in _reason(s))
        if shown.symptoms:
            yield edge, shown


def _unread_servers(facts: Facts) -> Iterator[EdgeFacts]:
    """Edges that offer mesh TLS to servers of which no proxy was read, where nothing read predicts a failure."""
    for edge in facts.edges:
        if any(facts.config(proxy) for proxy in edge.server_proxies):
            continue
        offered = [branch.at(Stage.TLS_OFFER) for one in edge.walks for branch in one.branches]
        if any(hop is not None and hop.outcome == "pass" and _is_mutual(hop) for hop in offered) and not (
            edge.predicted(*transport.CERTIFICATE_CAUSES)
        ):
            yield edge


def _is_mutual(hop: Hop) -> bool:
    made = hop.detail.get("offer")
    return isinstance(made, transport.Offer) and made.kind == "mtls"


def names_in_log(facts: Facts, refusal: Refusal) -> tuple[tuple[str, ...], str]:
    """The names that a client demands, and the one that the server showed by the client's log."""
    example = next((s for s in refusal.shown.symptoms if s.from_log), None)
    shown = _SANS.search(_reason(example)) if example is not None else None
    expected: list[str] = []
    for name in refusal.edge.clusters:
        cluster = refusal.edge.client_cluster(name)
        for proxy in refusal.edge.client_proxies:
            if cluster is not None:
                expected += transport.wanted_names(transport.names_demanded(proxy, cluster))
    return tuple(dict.fromkeys(expected)), shown[1].partition(",")[0] if shown else ""


_SANS = re.compile(r"certificate_SANs_are_\[([^\]]*)\]")


def wrong_names(
    rule: Rule,
    facts: Facts,
    of_another: str,
    other: RuledOut,
    fixes: Callable[[ObjectRef, ProxyId | None, tuple[str, ...]], tuple[Fix, ...]],
) -> Iterator[Claim]:
    """Valid certificates with a name that the other side doesn't take, for the rule about this kind of name.

    `of_another` is the kind in words ("service account"), `other` why it isn't the other kind.
    """
    servers = refused_servers(facts, rule.cause, "SAN_matcher", telling=("ssl_fail_verify_san",))
    clients = refused_clients(facts, rule.cause, server_stat="ssl_fail_verify_san")
    for refusal in (*servers, *clients):
        expected, actual = refusal.expected, refusal.actual
        if refusal.found is None:
            expected, actual = names_in_log(facts, refusal)
            if transport.san_cause(actual, expected) != rule.cause:
                continue
        yield from claims(
            rule,
            refusal.edge,
            refusal.shown,
            predicted=refusal.found,
            at_most=refusal.at_most,
            stage=Stage.TLS_ACCEPT,
            subject=refusal.subject,
            title=f"{refusal.edge.edge}: the certificate is of another {of_another}",
            explanation=f"{refusal.who} shows the identity {actual}{refusal.part}; the other side expects "
            f"{', '.join(expected) or 'another one'}",
            fix=fixes(refusal.subject, refusal.pod, expected),
            ruled_out=(
                RuledOut(
                    "server-cert-untrusted-by-client",
                    "the chain is trusted and valid; only the name is wrong",
                ),
                other,
            ),
        )
    for found in unsound(facts, rule.cause):
        workload = facts.workload(found.proxy)
        yield state_claim(
            rule,
            facts,
            found,
            title=f"{workload} shows a certificate of another {of_another} than its callers expect",
            explanation=found.why,
            fix=fixes(workload, found.proxy.id, ()),
        )
