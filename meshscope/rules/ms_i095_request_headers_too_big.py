"""The request's headers are bigger than the proxy takes.

Symptom
    The caller gets 431; the first proxy on the way (most often its own sidecar) logs `DPE` with
    `http1.headers_too_large` and no path, method or cluster: it never read the request to its end.

Why it fails
    Envoy takes 60 KiB of request headers. Cookies that grow or tokens with many claims exceed that.

How meshscope knows
    The proxy says so in its log, or protocol errors of its connection manager rise with more than 60 KiB received for
    each.

Fix
    Make the headers smaller; an EnvoyFilter can raise `max_request_headers_kb` of the connection manager, on every proxy
    on the way.

References
    Envoy: HttpConnectionManager max_request_headers_kb; response code details.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshscope.model.findings import Fix, Unknown
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.rules.shared.application import told
from meshscope.rules.shared.http_requests import rejected_requests, too_big
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I095",
    cause="request-headers-too-big",
    title="The request's headers are bigger than the proxy takes",
    severity="error",
    mesh="istio",
    inputs=("symptoms", "counters"),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for edge in facts.edges:
        found = rejected_requests(edge, too_big, big=True)
        if found is None:
            continue
        yield from told(
            RULE,
            edge,
            found,
            subject=edge.client_subject,
            discriminator=edge.host if found.symptoms else f"port {edge.port}",
            stage=Stage.CAPTURE,
            title=f"{edge.edge}: the request's headers are too big",
            explanation=f"{edge.edge.source} sends more than the 60 KiB of headers that a proxy takes; it refuses them with "
            "431 before it knows what was asked for",
            fix=(
                Fix(
                    "advice",
                    f"look at the cookies and tokens that {edge.edge.source} sends and make them smaller; an EnvoyFilter "
                    "with max_request_headers_kb (at most 8192) raises the limit",
                    "every proxy on the way and the application itself have such a limit",
                ),
            ),
        )
