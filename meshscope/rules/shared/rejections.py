"""What the rules about refused configuration share: where a proxy's refusal shows, and since when it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from meshscope.envoy.access_log import EnvoyMessage
from meshscope.facts.proxy import Proxy
from meshscope.istio.envoy_filters import applying
from meshscope.istio.kubernetes import dicts
from meshscope.istio.syncz import TypeSync
from meshscope.model.findings import Evidence, Fix
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef
from meshscope.rules.claims import CERTAIN, COUNTED, SEEN
from meshscope.rules.facts import Facts
from meshscope.rules.rule import Claim, Rule
from meshscope.sources.source import Part
from meshscope.walk.hops import Stage


class Kind(msgspec.Struct, frozen=True):
    """A type of resources: istiod's and Envoy's names for it, where it is counted, what an EnvoyFilter calls it."""

    short: str
    noun: str
    urls: frozenset[str]
    scope: str
    patched: frozenset[str]

    def counted(self, stat: str, what: str) -> bool:
        """Whether a counter of the scope is this kind's `what`; those of routes hold the configuration's name."""
        return stat.startswith(f"{self.short.lower()}_") and stat.endswith(f"_{what}")


CLUSTERS = Kind(
    "CDS",
    "cluster",
    frozenset({"Cluster", "clusters"}),
    "cluster_manager",
    frozenset({"CLUSTER"}),
)
LISTENERS = Kind(
    "LDS",
    "listener",
    frozenset({"Listener", "listeners"}),
    "listener_manager",
    frozenset({"LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"}),
)
ROUTES = Kind(
    "RDS",
    "route",
    frozenset({"RouteConfiguration", "routes"}),
    "http",
    frozenset({"ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"}),
)

_REJECTED = re.compile(r"config for \S*?(?P<type>\w+) rejected: (?P<reason>.*)", re.DOTALL)
"""However resources come (delta, gRPC, REST), Envoy words a refusal so."""
_PREFIX = re.compile(r"Error adding/updating (?:listener|cluster)\(s\) (?P<name>\S+): ")


class Rejection(msgspec.Struct, frozen=True):
    """A refusal that holds now. `reason` is the proxy's own word, "" where only counters tell."""

    proxy: Proxy
    reason: str
    since: datetime | None
    evidence: tuple[Evidence, ...]
    sure: float


def rejections(facts: Facts, kind: Kind) -> Iterator[Rejection]:
    """The proxies that refuse what istiod last sent them of this kind."""
    for proxy in facts.proxies:
        found = _rejection(facts, proxy, kind)
        if found is not None:
            yield found


def _rejection(facts: Facts, proxy: Proxy, kind: Kind) -> Rejection | None:
    status = facts.sync(proxy)
    sync = status.of(kind.short) if status is not None else None
    dump = _in_dump(facts, proxy, kind)
    if sync is not None and sync.state == "SYNCED" and not dump:
        return None
    message = _message(facts, proxy, kind)
    moved = _moved(facts, proxy, kind)
    refused = sync if sync is not None and sync.state == "ERROR" else None
    evidence = [Evidence(f"proxy {proxy.id}", proxy.path(Part.CONFIG_DUMP), text) for _, text in dump[:2]]
    if refused is not None:
        evidence.append(_said(proxy, kind, refused))
    if message is not None:
        where = f"{proxy.path(Part.LOG)} line {message.number}"
        evidence.append(Evidence(f"proxy {proxy.id}", where, message.text))
    if not evidence and not moved:
        return None
    reasons = [text for _, text in dump] + ([refused.last_error] if refused is not None else [])
    reasons += [_reason(message)] if message is not None else []
    times = [time for time, _ in dump] + ([refused.sent_time] if refused is not None else [])
    times += [message.time] if message is not None else []
    return Rejection(
        proxy,
        max(reasons, key=len, default="").strip(),
        min((time for time in times if time is not None), default=None),
        (*evidence, *moved),
        CERTAIN if dump or refused is not None else SEEN if message is not None else COUNTED,
    )


def _in_dump(facts: Facts, proxy: Proxy, kind: Kind) -> list[tuple[datetime | None, str]]:
    """What the dump says of refused resources: it forgets a refusal as soon as an update is accepted."""
    config = facts.config(proxy)
    found = config.rejected if config is not None else ()
    return [
        (
            _time(one.error.last_update_attempt),
            f"{one.name}: {one.error.details}" if one.name else one.error.details,
        )
        for one in found
        if one.kind == kind.noun
    ]


def _message(facts: Facts, proxy: Proxy, kind: Kind) -> EnvoyMessage | None:
    """Envoy's last message of a refusal, unless it has accepted an update since."""
    accepted = _accepted(facts, proxy, kind)
    for message in reversed(facts.messages(proxy)):
        found = _REJECTED.search(message.text)
        if found is not None and found["type"] in kind.urls:
            return None if message.time is not None and message.time.timestamp() < accepted else message
    return None


def _accepted(facts: Facts, proxy: Proxy, kind: Kind) -> float:
    """When the proxy last accepted an update of the kind, as seconds since 1970; 0 where that isn't counted."""
    times = facts.gauges(proxy, kind.scope, lambda stat: kind.counted(stat, "update_time"))
    # Of several route configurations any may be the refused one: only that all were accepted says something.
    return min(times.values(), default=0.0) / 1000


def _moved(facts: Facts, proxy: Proxy, kind: Kind) -> tuple[Evidence, ...]:
    found = facts.moved_named(proxy, kind.scope, lambda stat: kind.counted(stat, "update_rejected"))
    return tuple(moved.evidence for moved in found)


def _said(proxy: Proxy, kind: Kind, sync: TypeSync) -> Evidence:
    sent = f", sent at {sync.sent_time:%H:%M:%S}" if sync.sent_time is not None else ""
    return Evidence(
        "istiod",
        f"/debug/syncz: {proxy.id.pod}.{proxy.id.namespace} {kind.short}",
        f"{sync.last_error}{sent}",
    )


def _reason(message: EnvoyMessage) -> str:
    found = _REJECTED.search(message.text)
    return found["reason"].partition("\t")[0] if found is not None else ""


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


# --- the claim ------------------------------------------------------------------------------------------------


def rejected(rule: Rule, facts: Facts, kind: Kind) -> Iterator[Claim]:
    """The claims of a rule about refused resources of one kind."""
    for found in rejections(facts, kind):
        workload = facts.workload(found.proxy)
        filters = _patching(facts, found.proxy, kind)
        named = _PREFIX.search(found.reason)
        what = f"{kind.noun} {named['name']}" if named is not None else f"a {kind.noun}"
        reason = _PREFIX.sub("", found.reason) or "its log would say why"
        since = f" since {found.since:%Y-%m-%d %H:%M:%S} UTC" if found.since is not None else ""
        blamed = (
            f" ({', '.join(str(one.ref) for one in filters)} changes its {kind.noun}s)" if filters else ""
        )
        yield Claim(
            rule=rule,
            subject=filters[0].ref if len(filters) == 1 else workload,
            stage=Stage.CAPTURE,
            discriminator=kind.short,
            title=f"the proxy of {workload.namespace}/{workload.name} rejects {what} that istiod sends",
            explanation=f"Envoy refuses it: {reason}{blamed}. The proxy goes on with the {kind.noun}s that it had{since}: no later "
            f"change to that {kind.noun} has reached it",
            evidence=found.evidence,
            fix=_fixes(filters, found.proxy, kind),
            confidence=found.sure,
            affected=(str(workload),),
        )


def _patching(facts: Facts, proxy: Proxy, kind: Kind) -> tuple[KubernetesObject, ...]:
    """The EnvoyFilters of the proxy that change resources of this kind."""
    pod = facts.objects.pod(proxy.id.namespace, proxy.id.pod)
    return tuple(
        found
        for found in (applying(facts.objects, pod) if pod is not None else ())
        if any(patch.get("applyTo") in kind.patched for patch in dicts(found.spec.get("configPatches")))
    )


def _fixes(filters: tuple[KubernetesObject, ...], proxy: Proxy, kind: Kind) -> tuple[Fix, ...]:
    effect = f"istiod sends the {kind.noun}s without it, and the proxy takes them"
    found = tuple(_edit(one.ref, effect) for one in filters[:2])
    look = Fix(
        "command",
        f"istioctl proxy-status {proxy.id.pod}.{proxy.id.namespace}",
        "shows what istiod means the proxy to have beside what it holds",
    )
    return (*found, look)


def _edit(ref: ObjectRef, effect: str) -> Fix:
    return Fix("command", f"kubectl edit envoyfilter {ref.name} -n {ref.namespace}", effect)
