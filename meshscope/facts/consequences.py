"""Which symptoms are mere consequences of others: a failure is told by every proxy that it passes through.

A request keeps its x-request-id from proxy to proxy, and from call to call where the application passes it on.
Among the failing lines of one id the one to blame is the deepest that a proxy made itself (its details aren't
`via_upstream`), else the deepest of all: there the application answered. Lines that only say that the peer left
(`DC`) follow from whoever left. Without shared ids, a failing answer of a workload follows from its own failing
calls of the same moments. Of a cluster's counters the general ones (5xx, resets) follow from those that say why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta

from meshscope.envoy.access_log import AccessLogEntry
from meshscope.facts.edges import ObservedEdge
from meshscope.facts.symptoms import Symptom

SLACK = timedelta(milliseconds=50)
"""Clocks of two pods on two nodes differ by about this much at most where they are kept."""


def consequences(edges: Iterable[ObservedEdge]) -> dict[str, frozenset[str]]:
    """For each symptom's id the ids of the symptoms that it follows from; symptoms that stand alone are absent."""
    told = [(edge, symptom) for edge in edges for symptom in edge.symptoms]
    found: dict[str, set[str]] = defaultdict(set)
    joined = _by_request(told, found)
    _by_workload(told, found, joined)
    _by_counter(told, found)
    return {symptom: frozenset(sources) for symptom, sources in found.items()}


def _made_here(entry: AccessLogEntry) -> bool:
    """Whether the proxy itself made the failure, rather than passing one on."""
    return entry.response_code_details not in {"via_upstream", ""} and "DC" not in entry.response_flags


def _by_request(told: list[tuple[ObservedEdge, Symptom]], found: dict[str, set[str]]) -> set[str]:
    """Joins by request id; returns the symptoms for which an id led to another symptom."""
    requests: dict[str, list[tuple[AccessLogEntry, Symptom]]] = defaultdict(list)
    for _, symptom in told:
        for entry in symptom.entries:
            if entry.request_id:
                requests[entry.request_id].append((entry, symptom))
    joined: set[str] = set()
    for group in requests.values():
        if len({symptom.id for _, symptom in group}) < 2:
            continue
        source = _origin(group)
        for _, symptom in group:
            joined.add(symptom.id)
            if symptom.id != source.id:
                found[symptom.id].add(source.id)
    for symptom_id, sources in found.items():
        for source_id in tuple(sources):
            if symptom_id in found.get(source_id, ()):
                found[source_id].discard(symptom_id)
    return joined


def _origin(group: list[tuple[AccessLogEntry, Symptom]]) -> Symptom:
    """The symptom to blame among one request's lines; deepest is the one that started last."""

    def depth(pair: tuple[AccessLogEntry, Symptom]) -> tuple[str, bool]:
        entry, symptom = pair
        return (entry.start_time.isoformat() if entry.start_time else "", symptom.side == "server")

    own = [pair for pair in group if _made_here(pair[0])]
    if own:
        return max(own, key=depth)[1]
    left = [pair for pair in group if "DC" in pair[0].response_flags]
    if left and len(left) == len(group):
        return min(left, key=depth)[1]
    answered = [pair for pair in group if "DC" not in pair[0].response_flags]
    return max(answered or group, key=depth)[1]


def _by_workload(
    told: list[tuple[ObservedEdge, Symptom]], found: dict[str, set[str]], joined: set[str]
) -> None:
    """A workload's failing answers follow from its failing calls, where no request id says more."""
    failing_calls: dict[str, list[Symptom]] = defaultdict(list)
    for edge, symptom in told:
        if symptom.side == "client":
            failing_calls[str(edge.key.client)].append(symptom)
    for edge, symptom in told:
        if (
            symptom.id in joined
            or (symptom.from_log and symptom.details != "via_upstream")
            or symptom.code < 500
        ):
            continue
        for server in edge.servers:
            for call in failing_calls[str(edge.mesh.workload_of(server))]:
                if call.id != symptom.id and _together(symptom, call):
                    found[symptom.id].add(call.id)


def _together(answer: Symptom, call: Symptom) -> bool:
    if not (answer.first and answer.last and call.first and call.last):
        return False
    return answer.first - SLACK <= call.last and call.first - SLACK <= answer.last


RETRIED = frozenset({"upstream_rq_retry_limit_exceeded"})
"""Counts requests whose every try failed in a way that another counter tells."""
GENERAL = RETRIED | {
    "upstream_rq_5xx",
    "upstream_rq_rx_reset",
    "upstream_rq_tx_reset",
    "upstream_cx_destroy_remote_with_active_rq",
}
"""Counters of an Envoy cluster that failures of many kinds move."""
TELLING = frozenset(
    {
        "upstream_rq_pending_overflow",
        "upstream_rq_active_overflow",
        "upstream_rq_retry_overflow",
        "upstream_cx_overflow",
        "upstream_cx_connect_fail",
        "upstream_cx_connect_timeout",
        "upstream_cx_none_healthy",
        "upstream_cx_protocol_error",
        "upstream_rq_timeout",
        "upstream_rq_per_try_timeout",
        "upstream_rq_max_duration_reached",
    }
)
"""Counters that say of themselves why a request failed."""


CROWDED, FULL = "upstream_cx_overflow", "upstream_rq_pending_overflow"
"""Requests wait because no connection may be opened; then no more may wait."""


def _by_counter(told: list[tuple[ObservedEdge, Symptom]], found: dict[str, set[str]]) -> None:
    """What a cluster's general counters count follows from what its telling ones do."""
    groups: dict[tuple[str, str], list[Symptom]] = defaultdict(list)
    for _, symptom in told:
        if symptom.stat is not None:
            groups[(str(symptom.proxy), symptom.cluster)].append(symptom)
    for group in groups.values():
        named = {symptom.stat[2]: symptom.id for symptom in group if symptom.stat is not None}
        telling = {symptom for stat, symptom in named.items() if stat in TELLING}
        retried = {symptom for stat, symptom in named.items() if stat in RETRIED}
        for stat, counted in named.items():
            if stat == CROWDED and FULL in named:
                found[counted].add(named[FULL])
            if stat in GENERAL:
                sources = telling or (retried if stat not in RETRIED else set())
                if sources:
                    found[counted] |= sources
