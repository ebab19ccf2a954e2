"""A proxy hasn't acknowledged what istiod sent it.

Symptom
    A change has no effect at one workload: it goes on with routes, policies or endpoints of before. `istioctl
    proxy-status` shows a type as STALE.

Why it fails
    istiod sent configuration and waits for the proxy's answer: the proxy is too busy to take it (memory, CPU limits), waits
    for a secret or for endpoints, or the connection between them is dead and nobody noticed.

How meshscope knows
    istiod's `/debug/syncz` says that what it sent last isn't what the proxy acknowledged, for longer than a proxy needs.
    A refusal is another cause (listener-, cluster-, route-rejected), and what is SYNCED raises nothing.

Fix
    Look at the proxy's CPU and memory and its log. Restarting the pod makes a new connection and a full push.

References
    Istio: "Debugging Envoy and Istiod", `istioctl proxy-status`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from meshscope.facts.proxy import Proxy
from meshscope.istio.syncz import ProxySync, TypeSync
from meshscope.model.findings import Evidence, Fix, Unknown
from meshscope.rules.claims import CERTAIN, LIKELY
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.walk.hops import Stage

RULE = Rule(
    code="MS-I102",
    cause="proxy-config-stale",
    title="A proxy hasn't acknowledged what istiod sent it",
    severity="error",
    mesh="istio",
    inputs=("sync",),
    since="0.1.0",
    verified_on=("Envoy 1.40",),
)

LATE_S = 3.0
"""An idle proxy acknowledges within milliseconds, a large one within a second or two of a full push."""

STALE_NOUNS = {
    "CDS": "clusters (DestinationRules, new Services)",
    "LDS": "listeners (ports, policies)",
    "RDS": "routes (VirtualServices)",
    "EDS": "endpoints (which pods there are)",
    "ECDS": "extensions",
}


def check(facts: Facts) -> Iterable[Claim | Unknown]:
    for proxy in facts.proxies:
        status = facts.sync(proxy)
        late = _late(status, facts.captured_at) if status is not None else {}
        if late:
            yield _stale(facts, proxy, late)


def _late(status: ProxySync, at: datetime) -> dict[str, TypeSync]:
    """The types that were sent and not acknowledged in time, and clusters or listeners that were never sent."""
    return {
        short: found
        for short, found in status.types.items()
        if short in STALE_NOUNS
        and (
            (found.state == "STALE" and _age_s(found, at) >= LATE_S)
            or (found.state == "NOT SENT" and short in {"CDS", "LDS"})
        )
    }


def _age_s(found: TypeSync, at: datetime) -> float:
    return (at - found.sent_time).total_seconds() if found.sent_time is not None else LATE_S


def _stale(facts: Facts, proxy: Proxy, late: dict[str, TypeSync]) -> Claim:
    workload = facts.workload(proxy)
    sent = min((found.sent_time for found in late.values() if found.sent_time is not None), default=None)
    since = f" since {sent:%Y-%m-%d %H:%M:%S} UTC" if sent is not None else ""
    what = ", ".join(STALE_NOUNS[short] for short in sorted(late))
    return Claim(
        rule=RULE,
        subject=workload,
        stage=Stage.CAPTURE,
        title=f"the proxy of {workload.namespace}/{workload.name} runs on old configuration ({', '.join(sorted(late))})",
        explanation=f"istiod waits{since} for {proxy.id} to acknowledge its {what}; until then the proxy decides by what it had",
        evidence=tuple(
            Evidence(
                "istiod",
                f"/debug/syncz: {proxy.id.pod}.{proxy.id.namespace} {short}",
                found.state
                + (f", sent at {found.sent_time:%H:%M:%S}" if found.sent_time is not None else ""),
            )
            for short, found in sorted(late.items())
        ),
        fix=(
            Fix(
                "command",
                f"kubectl logs {proxy.id.pod} -n {proxy.id.namespace} -c istio-proxy --since=10m",
                "shows whether the proxy is connected and what it is busy with",
            ),
            Fix(
                "command",
                f"kubectl delete pod {proxy.id.pod} -n {proxy.id.namespace}",
                "a new pod connects anew and gets everything; the requests under way fail",
            ),
        ),
        confidence=CERTAIN if sent is not None else LIKELY,
        affected=(str(workload),),
    )
