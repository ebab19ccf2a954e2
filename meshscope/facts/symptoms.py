"""Symptoms: requests that fail now, as one proxy told of them, grouped by the way they fail."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from meshscope.envoy.access_log import AccessLogEntry
from meshscope.model.names import ProxyId

Side = Literal["client", "server"]

BENIGN_FLAGS = frozenset({"-", ""})
RECOVERED_BELOW = 0.01
"""A failure counts as over when so many successes in a row would be this improbable had it gone on."""


class Symptom(msgspec.Struct, frozen=True):
    """One way of failing on one edge, seen by one proxy.

    From the access log: `code`, `flags`, `details`, `termination`, `failure_reason` and an `example` line.
    From counters (only where the proxy's log is missing): `stat` as (scope, name, stat) and by how much it moved.
    `count` is how many, `of` how many requests there were on the edge in the same time (0: not known).
    """

    id: str
    proxy: ProxyId
    side: Side
    count: int
    of: int = 0
    cluster: str = ""
    code: int = 0
    flags: frozenset[str] = frozenset()
    details: str = ""
    termination: str = ""
    failure_reason: str = ""
    stat: tuple[str, str, str] | None = None
    first: datetime | None = None
    last: datetime | None = None
    example: AccessLogEntry | None = None
    entries: tuple[AccessLogEntry, ...] = ()
    """All lines, for rules that need more than one (peers, paths); empty for counters."""

    @property
    def from_log(self) -> bool:
        return self.stat is None

    @property
    def passed_on_client_error(self) -> bool:
        """Whether it is a 4xx that came from further on: perhaps only the application's own answer."""
        return 400 <= self.code < 500 and self.details in {"via_upstream", ""} and not self.flags

    def has(self, *flags: str) -> bool:
        """Whether all these response flags are set."""
        return self.flags.issuperset(flags)


def is_tcp(entry: AccessLogEntry) -> bool:
    """Whether the line is of a TCP connection: no method and no HTTP status."""
    return not entry.method and entry.response_code == 0


def fails(entry: AccessLogEntry) -> bool:
    """Whether a line tells of a failure or of interference by a proxy (a delay, a retry that gave up).

    An application's own 4xx is its answer, not a failure; a proxy's is: its details aren't `via_upstream`.
    """
    if entry.response_flags - BENIGN_FLAGS:
        return True
    if is_tcp(entry):
        details = entry.connection_termination_details
        return bool(details) or (entry.bytes_received > 0 and entry.bytes_sent == 0)
    if entry.response_code == 0 or entry.response_code >= 500:
        return True
    return entry.response_code >= 400 and (
        entry.response_code_details != "via_upstream" or entry.response_code in PROXY_ANSWERS
    )


PROXY_ANSWERS = frozenset({401, 403, 404, 408, 413, 421, 426, 429, 431})
"""4xx that a proxy further on may have given: at the client they read `via_upstream` all the same."""

_VOLATILE = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?|0x[0-9a-f]+")


def signature(entry: AccessLogEntry) -> tuple[str, ...]:
    """What makes two failing lines alike; addresses in texts don't."""
    return (
        entry.upstream_cluster,
        str(entry.response_code),
        ",".join(sorted(entry.response_flags)),
        _VOLATILE.sub("·", entry.response_code_details),
        _VOLATILE.sub("·", entry.connection_termination_details),
        _VOLATILE.sub("·", entry.upstream_transport_failure_reason),
    )


def current(entries: Iterable[AccessLogEntry], at: datetime, window_s: float) -> list[AccessLogEntry]:
    """The lines of the last `window_s` seconds before `at`; lines without a time can't be shown to be current."""
    since = at - timedelta(seconds=window_s)
    return [entry for entry in entries if entry.start_time is not None and entry.start_time >= since]


def from_log(
    proxy: ProxyId,
    side: Side,
    edge: str,
    entries: list[AccessLogEntry],
    elsewhere: Iterable[AccessLogEntry] = (),
) -> list[Symptom]:
    """The symptoms in one proxy's current lines of an edge, worst first.

    A way of failing that stopped is left out: after its last line so many of the same route's requests succeeded
    that chance can't explain it. `elsewhere` are lines of the edge's other proxies, whose successes count too: an
    ejected endpoint's own log just ends.
    """
    groups: dict[tuple[str, ...], list[AccessLogEntry]] = {}
    good: list[AccessLogEntry] = []
    for entry in entries:
        if fails(entry):
            groups.setdefault(signature(entry), []).append(entry)
        else:
            good.append(entry)
    symptoms = []
    others = [entry for entry in elsewhere if not fails(entry)] if groups else []
    for key, failing in groups.items():
        if _recovered(failing, [*good, *others]):
            continue
        example = failing[-1]
        symptoms.append(
            Symptom(
                id="|".join((str(proxy), side, edge, *key)),
                proxy=proxy,
                side=side,
                count=len(failing),
                of=len(entries),
                cluster=example.upstream_cluster,
                code=example.response_code,
                flags=example.response_flags - BENIGN_FLAGS,
                details=example.response_code_details,
                termination=example.connection_termination_details,
                failure_reason=example.upstream_transport_failure_reason,
                first=failing[0].start_time,
                last=example.start_time,
                example=example,
                entries=tuple(failing),
            )
        )
    symptoms.sort(key=lambda symptom: -symptom.count)
    return symptoms


def _recovered(failing: list[AccessLogEntry], good: list[AccessLogEntry]) -> bool:
    last = failing[-1].start_time
    if last is None:
        return False
    path = failing[-1].path.partition("?")[0]
    alike = [e for e in good if e.path.partition("?")[0] == path and e.method == failing[-1].method]
    after = sum(1 for e in alike if e.start_time and e.start_time > last)
    before = len(alike) - after
    rate = len(failing) / (len(failing) + before)
    return after > 0 and float((1 - rate) ** after) < RECOVERED_BELOW and (rate < 1 or after >= len(failing))


FAILING_CLUSTER_STATS = (
    "upstream_rq_pending_overflow",
    "upstream_rq_active_overflow",
    "upstream_rq_retry_overflow",
    "upstream_rq_retry_limit_exceeded",
    "upstream_cx_overflow",
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_cx_none_healthy",
    "upstream_cx_protocol_error",
    "upstream_cx_destroy_remote_with_active_rq",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_max_duration_reached",
    "upstream_rq_rx_reset",
    "upstream_rq_tx_reset",
    "upstream_rq_5xx",
    "upstream_rq_401",
    "upstream_rq_403",
    "upstream_rq_404",
    "upstream_rq_408",
    "upstream_rq_429",
    "upstream_rq_431",
    "ssl_connection_error",
    "ssl_fail_verify_error",
    "ssl_fail_verify_no_cert",
    "ssl_fail_verify_san",
    "lb_healthy_panic",
    "outlier_detection_ejections_enforced_total",
    "outlier_detection_ejections_overflow",
)
"""Counters of an Envoy cluster that move only when something fails (or, for ejections, is acted upon)."""

ORDINARY_FOR_TCP = frozenset({"upstream_cx_destroy_remote_with_active_rq"})
"""Counters that every TCP connection moves which its server closes; only HTTP completes requests."""
