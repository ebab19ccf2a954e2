"""The answer's headers are bigger than the sidecar takes.

Symptom
    The caller gets 502 (503 before Envoy 1.30); the server's sidecar logs `UPE` with
    `upstream_reset_before_response_started{protocol_error}`, though the application answered.

Why it fails
    Envoy takes 60 KiB of response headers. Big cookies, tokens or debugging headers exceed that.

How meshscope knows
    The sidecar next to the application rejected the answers, and its cluster received at least 60 KiB for each of them
    (`upstream_cx_rx_bytes_total`). Without these counters an answer that isn't HTTP looks the same.

Fix
    Make the application's headers smaller: that is nearly always possible, and no other limit on the way is in danger
    then. An EnvoyFilter can raise `max_response_headers_kb` of the cluster.

References
    Envoy: HttpProtocolOptions, header size limits, response flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, RuledOut, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import told
from meshscope.rules.shared.http_errors import nonsense, sure

RULE = Rule(
    code="MS-I096",
    cause="response-headers-too-big",
    title="The answer's headers are bigger than the sidecar takes",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "walk", "counters", "config", "kubernetes"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = nonsense(facts, edge)
        if found is None or found.http2 or found.big is False:
            continue
        open_ = "; an answer that isn't HTTP would look the same: the server's upstream_cx_rx_bytes_total would tell"
        yield from told(
            RULE,
            edge,
            sure(found),
            title=f"{edge.edge}: the headers of the application's answer are too big",
            explanation=f"the application behind {edge.edge.destination} answers with more than the 60 KiB of headers that "
            "the sidecar takes" + ("" if found.decided else open_),
            fix=(
                Fix(
                    "advice",
                    f"look at the headers that {edge.edge.destination} sends (kubectl exec: curl -sD- -o /dev/null "
                    f"http://localhost:{edge.port}/PATH | wc -c) and make them smaller; an EnvoyFilter with "
                    "max_response_headers_kb raises the limit",
                    "every proxy on the way has such a limit",
                ),
            ),
            ruled_out=(RuledOut("app-not-http", "more than 60 KiB came with each rejected answer"),)
            if found.decided
            else (),
        )
