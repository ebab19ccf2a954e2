"""A port bypasses the server's sidecar.

Symptom
    Callers that use mTLS get 503 with `URX,UF` and `WRONG_VERSION_NUMBER`: the application itself answers their TLS
    hello. Callers in plaintext succeed, and no policy, metric or log of the server's sidecar knows of them.

Why it fails
    The annotation `traffic.sidecar.istio.io/excludeInboundPorts` names the port (or `includeInboundPorts` leaves it
    out), so the redirect to the sidecar isn't set up for it. Callers' auto mTLS goes by the pod's label and doesn't know
    that.

How meshscope knows
    The annotation of the pod (or of the node metadata in the proxy's bootstrap) covers the port that the Service leads
    to, and requests fail in just this way now. Where nothing fails it is a notice: policies don't apply to this port.

Fix
    Remove the annotation and restart the workload. If the port must bypass the sidecar, tell its callers to send
    plaintext: a DestinationRule with `portLevelSettings` and `tls.mode: DISABLE`.

References
    Istio: "Resource Annotations", traffic.sidecar.istio.io/excludeInboundPorts.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.injection import EXCLUDED_INBOUND, INCLUDED_INBOUND, skipped_by
from meshscope.istio.kubernetes import dicts, target_port
from meshscope.model.findings import Evidence, Fix, RuledOut, Unknown
from meshscope.model.names import WorkloadId
from meshscope.rules.claims import PREDICTED, claims
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.offers import NOT_TLS, mismatches
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I108",
    cause="inbound-port-skipped",
    title="A port bypasses the server's sidecar",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40", "Istio 1.32"),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for one in mismatches(facts, RULE.cause, NOT_TLS):
        edge = one.edge
        workload, port = facts.workload_at(one.endpoint), one.endpoint.rpartition(":")[2]
        yield from claims(
            RULE,
            edge,
            one.shown,
            predicted=one.found,
            subject=workload.ref,
            discriminator=port,
            title=f"{edge.edge}: the port bypasses the server's sidecar, the caller speaks mTLS",
            explanation=f"{workload} takes port {port} away from its sidecar ({one.found.hop.detail.get('skipped')}), so "
            f"that its application gets the callers' TLS{one.part}",
            fix=_fixes(workload, edge.host, edge.port),
            ruled_out=(
                RuledOut("client-mtls-server-disable", "the server's sidecar doesn't see the connection"),
                RuledOut("app-not-http", "the application got a TLS hello where it expects plaintext"),
            ),
        )
    yield from _notices(facts)


def _notices(facts: Facts) -> Iterable[Claim]:
    """Ports that Services lead to and that bypass the sidecar, whether or not somebody calls them."""
    objects = facts.objects
    told: set[tuple[WorkloadId, int]] = set()
    for service in objects.services:
        for entry in dicts(service.spec.get("ports")):
            number = entry.get("port")
            for pod in objects.pods_selected(service) if isinstance(number, int) else ():
                port = target_port(service, number, pod) if isinstance(number, int) else None
                annotation = skipped_by(pod.metadata.annotations, port) if port else ""
                workload = objects.workload_of(pod)
                if not annotation or port is None or (workload, port) in told:
                    continue
                if objects.has_proxy(pod) not in {"istio", "both"}:
                    continue
                told.add((workload, port))
                yield Claim(
                    rule=RULE,
                    subject=workload.ref,
                    stage=Stage.FILTER_CHAIN,
                    discriminator=str(port),
                    title=f"port {port} of {workload} bypasses its sidecar",
                    explanation=f"{annotation}: no policy of the mesh applies to what {service.metadata.name} sends to "
                    "this port, and callers that use mTLS fail",
                    evidence=(Evidence("kubernetes", f"{pod.ref}: annotations", annotation),),
                    fix=_fixes(workload, facts.whole.fqdn(service.ref), int(number or 0)),
                    confidence=PREDICTED,
                    affected=(str(workload),),
                    severity="info",
                )


def _fixes(workload: WorkloadId, host: str, port: int) -> tuple[Fix, ...]:
    keys = ",".join(f'"{key}":null' for key in (EXCLUDED_INBOUND, INCLUDED_INBOUND))
    patch = f'{{"spec":{{"template":{{"metadata":{{"annotations":{{{keys}}}}}}}}}}}'
    kind = workload.kind.lower()
    command = f"kubectl patch {kind} {workload.name} -n {workload.namespace} --type merge -p '{patch}'"
    plain = f"portLevelSettings: [{{port: {{number: {port}}}, tls: {{mode: DISABLE}}}}]"
    return (
        Fix("command", command, "rolls the workload's pods; all their ports pass the sidecar again"),
        Fix(
            "advice",
            f"or keep the bypass and tell callers: a DestinationRule for {host} with trafficPolicy {plain}",
            "the port stays in plaintext, without policies",
        ),
    )
