"""Which symptoms are mere consequences of others: a failure is told by every proxy that it passes through.

A request keeps its x-request-id from proxy to proxy, and from call to call where the application passes it on.
Of the failing lines of one id those at or below a line in the chain of calls can have made it: the deepest that a
proxy made itself (its details aren't `via_upstream`), else the deepest of all: there the application answered. Lines
that only say that the peer left (`DC`) follow from whoever left, above them. Calls beside each other explain nothing
of one another. Where an application passes no ids on, its failing answers follow from its own failing calls of the
same moments.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta

import msgspec

from meshscope.envoy.access_log import AccessLogEntry
from meshscope.facts.edges import ObservedEdge, endpoint_ips
from meshscope.facts.symptoms import Symptom
from meshscope.model.names import WorkloadId

SLACK = timedelta(milliseconds=50)
"""Clocks of two pods on two nodes differ by about this much at most where they are kept."""
MOSTLY = 0.5
"""So big a share of a workload's failing answers must have a failing call in their time to follow from it."""

Told = list[tuple[ObservedEdge, Symptom]]


class _Line(msgspec.Struct, frozen=True):
    """A failing line of one request, where it is in the chain of calls."""

    entry: AccessLogEntry
    symptom: Symptom
    edge: ObservedEdge

    @property
    def made_here(self) -> bool:
        """Whether the proxy itself made the failure, rather than passing one on."""
        return self.entry.response_code_details not in {"via_upstream", ""} and not self.left

    @property
    def left(self) -> bool:
        return "DC" in self.entry.response_flags


def consequences(edges: Iterable[ObservedEdge]) -> dict[str, frozenset[str]]:
    """For each symptom's id the ids of the symptoms that it follows from; symptoms that stand alone are absent."""
    edges = tuple(edges)
    told = [(edge, symptom) for edge in edges for symptom in edge.symptoms]
    callees = _Callees()
    found: dict[str, set[str]] = defaultdict(set)
    _by_request(told, callees, found)
    _by_workload(edges, told, callees, found)
    _by_counter(told, found)
    return {symptom: frozenset(sources) for symptom, sources in found.items()}


class _Callees:
    """The workloads that serve an edge: by its proxies, by the caller's endpoints, by the Service's selector."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[WorkloadId]] = {}

    def of(self, edge: ObservedEdge) -> frozenset[WorkloadId]:
        key = str(edge.edge)
        if key not in self._known:
            mesh, host, port = edge.mesh, edge.key.host, edge.key.port
            found = {mesh.workload_of(server) for server in edge.servers}
            for client in edge.clients[:1]:
                found |= {mesh.workload_at(ip) for ip in endpoint_ips(client, host, port)}
            service = mesh.objects.service_of_host(host)
            if service is not None:
                found |= {mesh.objects.workload_of(pod) for pod in mesh.objects.pods_selected(service)}
            self._known[key] = frozenset(found)
        return self._known[key]

    def below(self, line: _Line, group: list[_Line]) -> list[_Line]:
        """The lines at or below this one in the chain of calls; those of the same edge count as one place."""
        edges = {str(line.edge.edge)}
        reached = set(self.of(line.edge))
        grew = True
        while grew:
            grew = False
            for other in group:
                name = str(other.edge.edge)
                if name not in edges and other.edge.key.client in reached:
                    edges.add(name)
                    reached |= self.of(other.edge)
                    grew = True
        return [other for other in group if str(other.edge.edge) in edges]


def _by_request(told: Told, callees: _Callees, found: dict[str, set[str]]) -> None:
    """Joins by request id."""
    requests: dict[str, list[_Line]] = defaultdict(list)
    for edge, symptom in told:
        for entry in symptom.entries:
            if entry.request_id:
                requests[entry.request_id].append(_Line(entry, symptom, edge))
    for group in requests.values():
        if len({line.symptom.id for line in group}) < 2:
            continue
        for line in group:
            source = _origin(line, group, callees)
            if source.symptom.id != line.symptom.id:
                found[line.symptom.id].add(source.symptom.id)
    for symptom_id, sources in found.items():
        for source_id in tuple(sources):
            if symptom_id in found.get(source_id, ()):
                found[source_id].discard(symptom_id)


def _origin(line: _Line, group: list[_Line], callees: _Callees) -> _Line:
    """The line to blame for this one: of those at or below it the deepest that made its failure, else the deepest."""

    def depth(other: _Line) -> tuple[int, str, bool]:
        under = {str(one.edge.edge) for one in callees.below(other, group)}
        started = other.entry.start_time.isoformat() if other.entry.start_time else ""
        return (-len(under), started, other.symptom.side == "server")

    below = callees.below(line, group)
    own = [other for other in below if other.made_here]
    if own:
        return max(own, key=depth)
    answered = [other for other in below if not other.left]
    if answered:
        return max(answered, key=depth)
    above = [other for other in group if line in callees.below(other, group)]
    return min([other for other in above if other.made_here] or above, key=depth)


def _by_workload(
    edges: tuple[ObservedEdge, ...], told: Told, callees: _Callees, found: dict[str, set[str]]
) -> None:
    """A workload's failing answers follow from its failing calls, where it passes no request id on."""
    calls: dict[WorkloadId, list[Symptom]] = defaultdict(list)
    for edge, symptom in told:
        if symptom.side == "client":
            calls[edge.key.client].append(symptom)
    for edge, symptom in told:
        if symptom.details != "via_upstream" or symptom.code < 500 or found.get(symptom.id):
            continue
        for workload in callees.of(edge):
            following = [call for call in calls[workload] if call.id != symptom.id and _within(symptom, call)]
            if following and not _passes_on(edges, workload, symptom):
                found[symptom.id] |= {call.id for call in following}


def _passes_on(edges: tuple[ObservedEdge, ...], workload: WorkloadId, answer: Symptom) -> bool:
    """Whether the workload's own calls carry the ids of these requests: then what they don't join isn't related."""
    ids = {entry.request_id for entry in answer.entries if entry.request_id}
    own = (lines for edge in edges if edge.key.client == workload for lines in edge.client_lines.values())
    return any(entry.request_id in ids for lines in own for entry in lines)


def _within(answer: Symptom, call: Symptom) -> bool:
    """Whether most of the answers have one of the failing calls within their own time."""
    starts = sorted(entry.start_time for entry in call.entries if entry.start_time)
    timed = [entry for entry in answer.entries if entry.start_time]
    explained = 0
    for entry in timed:
        assert entry.start_time is not None
        first = entry.start_time - SLACK
        last = entry.start_time + timedelta(milliseconds=entry.duration_ms or 0) + SLACK
        at = bisect_left(starts, first)
        explained += at < len(starts) and starts[at] <= last
    return bool(timed) and explained > MOSTLY * len(timed)


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
