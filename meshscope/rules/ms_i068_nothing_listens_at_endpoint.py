"""Neither a sidecar nor an application listens at the endpoint.

Symptom
    The caller gets 503; its own sidecar logs `UF` (with retries `URX,UF`) and
    `delayed_connect_error:_Connection_refused`.

Why it fails
    The endpoint's address answers, and the port is closed: the pod has no sidecar and its application doesn't listen,
    the sidecar has crashed or takes no connections yet, or the address in a ServiceEntry or Endpoints object is wrong
    or stale.

How meshscope knows
    The caller's sidecar itself was refused, so no proxy stands at the other end. A sidecar that waits for its
    certificate refuses too: that is looked at first.

Fix
    Start the application (or sidecar) at that address and port, or correct the endpoint.

References
    Envoy: response flags; Kubernetes: Service, EndpointSlice; Istio: ServiceEntry.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.facts.symptoms import Symptom
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import (
    GONE,
    all_stale,
    caller_lines,
    is_gone,
    offers_tls,
    told,
    unsure,
)
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I068",
    cause="nothing-listens-at-endpoint",
    title="Nothing listens at the endpoint",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = caller_lines(edge, refused, ("upstream_cx_connect_fail",))
        if found is None or edge.predicted("server-secret-not-delivered") or all_stale(edge, found):
            continue
        by_counters = not any(s.from_log for s in found.symptoms)
        if by_counters and edge.client_moved("upstream_cx_connect_timeout"):
            continue
        if by_counters and offers_tls(edge):
            # Failed handshakes count as failed connects too.
            found = unsure(found)
        if is_gone(facts, edge, found):
            found = unsure(found, at_most=GONE)
        addresses = {e.upstream_host for s in found.symptoms for e in s.entries if e.upstream_host}
        where = ", ".join(sorted(addresses)[:3]) or "the endpoint"
        yield from told(
            RULE,
            edge,
            found,
            stage=Stage.CONNECT,
            title=f"{edge.edge}: nothing listens at {where}",
            explanation=f"{where} refuses the caller's sidecar: neither a sidecar nor an application listens there",
            fix=(
                Fix(
                    "command",
                    "kubectl get endpointslices,pods -A -o wide | grep -F '"
                    + (sorted(addresses)[0].rpartition(":")[0] if addresses else edge.host.partition(".")[0])
                    + "'",
                    "shows whose address it is and whether that pod runs; start what should listen there, or correct the endpoint",
                ),
            ),
            ruled_out=(
                RuledOut("app-not-listening", "a sidecar would have taken the connection"),
                RuledOut("connect-timeout", "the connection is refused at once"),
            ),
        )


def refused(symptom: Symptom) -> bool:
    """Whether a caller's line says that the connection itself was refused (text, or errno 111)."""
    text = f"{symptom.details} {symptom.failure_reason}".replace(" ", "_").lower()
    return symptom.has("UF") and ("connection_refused" in text or "delayed_connect_error:_111" in text)
