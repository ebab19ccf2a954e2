"""The server has a sidecar, but not the label by which auto mTLS knows that.

Symptom
    Every caller gets 503 `UC` without a transport failure reason; the server's sidecar logs `NR filter_chain_not_found`
    without a server name. It looks like a DestinationRule with `mode: DISABLE`, and there is none.

Why it fails
    Auto mTLS uses TLS only for endpoints whose pods have the label `security.istio.io/tlsMode: istio`. The injector sets
    it; a pod injected by hand, a template that overwrites it or a tool that prunes labels loses it. Callers then send
    plaintext to a sidecar that is STRICT.

How meshscope knows
    The client's cluster has auto mTLS' two transport sockets, the endpoint lacks `tlsMode: istio` in the metadata that
    istiod sent, so that the plaintext one is chosen; no filter chain of the server takes plaintext; requests fail in
    just this way now.

Fix
    Put the label back: on the running pods at once, and in the pod template (or by a fresh injection) for those to come.

References
    Istio: "Automatic mutual TLS", label security.istio.io/tlsMode.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.destination_rule import TLS_MODE_LABEL
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.model.names import OUTSIDE, WorkloadId
from meshscope.rules.claims import claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import BEFORE_THE_APPLICATION, CLOSED, mismatches, pod_label

RULE = Rule(
    code="MS-I003",
    cause="auto-mtls-endpoint-not-labelled",
    title="The endpoint isn't labelled for auto mTLS, so callers send plaintext to a STRICT server",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, CLOSED):
        edge = one.edge
        workload = facts.workload_at(one.endpoint)
        labelled = pod_label(facts, one.endpoint, TLS_MODE_LABEL) == "istio"
        lost = (
            "has the label, but the caller's proxy hasn't heard of it"
            if labelled
            else f"lacks the label {TLS_MODE_LABEL}=istio"
        )
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=workload.ref if workload != OUTSIDE else edge.server_subject,
            title=f"{edge.edge}: the server isn't marked as able to do mTLS, so callers send plaintext",
            explanation=f"the pod at {one.endpoint} has a sidecar and {lost}, so the callers' auto mTLS takes it for "
            f"plaintext{one.part}; {one.policy or 'the policy in force'} makes it STRICT, so it closes the connection",
            fix=_fixes(workload),
            ruled_out=(
                RuledOut(
                    "client-plaintext-server-strict", "no DestinationRule sets a TLS mode: auto mTLS decides"
                ),
                RuledOut("app-closes-connection", BEFORE_THE_APPLICATION),
            ),
            at_most=one.at_most,
        )


def _fixes(workload: WorkloadId) -> tuple[Fix, ...]:
    label = f"{TLS_MODE_LABEL}=istio"
    if workload == OUTSIDE or workload.kind not in {"Deployment", "StatefulSet", "DaemonSet"}:
        return (Fix("advice", f"give the server's pods the label {label}", "all callers use mTLS to them"),)
    patch = f'{{"spec":{{"template":{{"metadata":{{"labels":{{"{TLS_MODE_LABEL}":"istio"}}}}}}}}}}'
    kind = workload.kind.lower()
    command = f"kubectl patch {kind} {workload.name} -n {workload.namespace} --type merge -p '{patch}'"
    return (
        Fix("command", command, "rolls the workload's pods; callers use mTLS to the new ones"),
        Fix(
            "advice",
            f"kubectl label pods -n {workload.namespace} POD {label} helps a running pod at once",
            "callers use mTLS to this pod until it is replaced",
        ),
    )
