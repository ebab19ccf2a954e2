"""The port is declared HTTP, and the application answers something else.

Symptom
    The caller gets 502 (503 before Envoy 1.30); the server's sidecar logs `UPE` with
    `upstream_reset_before_response_started{protocol_error}`.

Why it fails
    The Service's port is named `http…`, so the sidecars take it for HTTP, and the application speaks another protocol
    (a database, TLS of its own, a binary protocol), or HTTP with errors that Envoy doesn't let pass.

How meshscope knows
    The sidecar next to the application couldn't read the answer as HTTP/1.1. Headers that are too big look the same in
    the log: the bytes that came from the application tell them apart, where they are counted.

Fix
    Name the port for what it is (`tcp-…`, `https-…` for TLS of the application's own), or mend the answer.

References
    Istio: "Protocol Selection"; Envoy: response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import told
from meshscope.rules.shared.http_errors import nonsense, sure

RULE = Rule(
    code="MS-I093",
    cause="app-not-http",
    title="The port is declared HTTP, and the application answers something else",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
    also_known_as=("KIA0602",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = nonsense(facts, edge)
        if found is None or found.http2 or found.big:
            continue
        open_ = "; headers that are too big would look the same: the server's upstream_cx_rx_bytes_total would tell"
        yield from told(
            RULE,
            edge,
            sure(found),
            title=f"{edge.edge}: the application's answer isn't HTTP",
            explanation=f"the sidecar takes the port of {edge.edge.destination} for HTTP and can't read the application's "
            "answer as that" + ("" if found.decided else open_),
            fix=(
                Fix(
                    "advice",
                    f"ask the application itself (kubectl exec: curl -v http://localhost:{edge.port}/); if it doesn't speak "
                    "HTTP, name the Service's port tcp-… (or https-… for its own TLS), else mend its answer",
                    "without HTTP there are no routes, retries and request metrics on this port",
                ),
            ),
            ruled_out=(RuledOut("response-headers-too-big", "too few bytes came from the application"),)
            if found.decided
            else (),
        )
