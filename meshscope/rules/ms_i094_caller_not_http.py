"""The port is declared HTTP, and the caller speaks something else.

Symptom
    The caller gets 400 or a closed connection; a sidecar logs `400 DPE http1.codec_error` without method and path. Or the
    caller's own sidecar logs a TCP connection through `PassthroughCluster` to the address of the Service.

Why it fails
    The Service's port is named `http…`, so the server's sidecar reads every connection as HTTP, and this caller speaks
    another protocol, TLS of its own, or HTTP with errors that Envoy doesn't let pass. The caller's own sidecar passes what
    doesn't look like HTTP through in plaintext, which a STRICT server refuses.

How meshscope knows
    A sidecar says that its peer broke the protocol (`DPE`), or its connection manager's protocol errors rise without
    the bytes that headers which are too big would bring.

Fix
    Let the caller speak HTTP on that port, or give the other protocol a port of its own, named for it.

References
    Istio: "Protocol Selection"; Envoy: response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.istio.kubernetes import service_port
from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.claims import SEEN
from meshscope.rules.facts import EdgeFacts, Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import Met, told
from meshscope.rules.shared.http_requests import not_http, rejected_requests
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I094",
    cause="caller-not-http",
    title="The port is declared HTTP, and the caller speaks something else",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

HTTP = ("http", "grpc", "kubernetes.io/h2c", "kubernetes.io/ws")


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        if edge.predicted("client-mtls-server-disable"):
            # What the server's sidecar can't read as HTTP is the TLS hello of the caller's sidecar.
            continue
        found = rejected_requests(edge, not_http, big=False) or _passed_through(facts, edge)
        if found is None:
            continue
        at_server = all(s.side == "server" for s in found.symptoms)
        yield from told(
            RULE,
            edge,
            found,
            subject=edge.client_subject,
            discriminator=edge.host if found.symptoms else f"port {edge.port}",
            stage=Stage.FILTER_CHAIN if at_server else Stage.CAPTURE,
            title=f"{edge.edge}: the caller doesn't speak HTTP on an HTTP port",
            explanation=f"the port of {edge.edge.destination} is read as HTTP, and what {edge.edge.source} sends isn't "
            "that (or isn't HTTP that Envoy lets pass)",
            fix=(
                Fix(
                    "advice",
                    f"find out what {edge.edge.source} speaks to {edge.edge.destination}; give that protocol a port of its "
                    "own, named tcp-… (or https-… for TLS), or let the caller speak HTTP",
                ),
            ),
            ruled_out=(RuledOut("app-not-http", "the caller's bytes were refused, no answer's"),),
        )


def _passed_through(facts: Facts, edge: EdgeFacts) -> Met | None:
    """TCP that the caller's own sidecar let through to the address of a Service whose port is HTTP."""
    through = [s for s in edge.on("client") if s.cluster == "PassthroughCluster" and not s.code]
    service = facts.objects.service_of_host(edge.host) if through else None
    port = service_port(service, edge.port) if service is not None else None
    if port is None or not str(port.get("appProtocol") or port.get("name") or "").startswith(HTTP):
        return None
    refused = [s for s in edge.on("server") if "filter_chain_not_found" in (s.details, s.termination)]
    return Met((*through, *refused), (), SEEN)
