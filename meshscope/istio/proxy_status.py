"""How far each proxy's configuration came, by what all istiods say, with those that none of them knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from meshscope.istio.syncz import TYPES, ProxySync, SyncAnswer, SyncState, TypeSync
from meshscope.istio.tables.table import Row, Table

ProxyState = Literal["ERROR", "NO ISTIOD", "STALE", "NOT SENT", "SYNCED", "IGNORED"]
_ORDER: tuple[ProxyState, ...] = ("ERROR", "NO ISTIOD", "STALE")

_NUMBERS = re.compile(r"v?([0-9]+(?:\.[0-9]+)+)")

_COLUMNS = ("NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES")


class Istiod(Struct, frozen=True):
    """One istiod's answer. `version` is its own, "" where nothing says it."""

    pod: str
    sync: SyncAnswer
    version: str = ""


class TypeStatus(Struct, frozen=True):
    """How far one type came. `sent_at` is RFC 3339, `age_s` seconds since; `error` the proxy's words of refusal."""

    type: str
    state: SyncState
    sent_at: str | None = None
    age_s: float | None = None
    error: str = ""


class ProxyStatus(Struct, frozen=True):
    """One proxy, POD.NAMESPACE. `version_differs` is null where either version isn't known."""

    name: str
    state: ProxyState
    cluster: str = ""
    istiod: str = ""
    version: str = ""
    control_plane_version: str = ""
    version_differs: bool | None = None
    kind: str = ""
    types: tuple[TypeStatus, ...] = ()

    @property
    def subscribed(self) -> tuple[TypeStatus, ...]:
        return tuple(found for found in self.types if found.state != "IGNORED")


def proxy_statuses(
    istiods: Iterable[Istiod], injected: Iterable[str], at: datetime
) -> tuple[ProxyStatus, ...]:
    """Every proxy, what failed first, then by cluster and name. `injected` are the proxies that there should be.

    A proxy that moved from one istiod to another is told by the one that sent to it last.
    """
    found: dict[tuple[str, str], ProxyStatus] = {}
    for istiod in istiods:
        for sync in istiod.sync:
            status = _status(istiod, sync, at)
            other = found.get((status.cluster, status.name))
            if other is None or _last_sent(status) > _last_sent(other):
                found[status.cluster, status.name] = status
    known = {name for _, name in found}
    missing = (ProxyStatus(name, "NO ISTIOD") for name in sorted(set(injected) - known))
    return tuple(sorted((*found.values(), *missing), key=_rank))


def _rank(status: ProxyStatus) -> tuple[int, str, str]:
    urgent = _ORDER.index(status.state) if status.state in _ORDER else len(_ORDER)
    return urgent, status.cluster, status.name


def _last_sent(status: ProxyStatus) -> str:
    return max((found.sent_at or "" for found in status.types), default="")


def _status(istiod: Istiod, sync: ProxySync, at: datetime) -> ProxyStatus:
    names = (*TYPES, *sorted(set(sync.types) - set(TYPES)))
    return ProxyStatus(
        name=sync.proxy,
        state=sync.worst(),
        cluster=sync.cluster_id,
        istiod=istiod.pod,
        version=sync.version,
        control_plane_version=istiod.version,
        version_differs=_differ(sync.version, istiod.version),
        kind=sync.proxy_type,
        types=tuple(_type(name, sync.of(name), at) for name in names),
    )


def _differ(one: str, other: str) -> bool | None:
    """Whether two versions differ in their numbers: `1.27.1` and `1.27.1-distroless` are the same Istio."""
    numbers, others = _NUMBERS.match(one), _NUMBERS.match(other)
    return numbers[1] != others[1] if numbers and others else None


def _type(name: str, sync: TypeSync, at: datetime) -> TypeStatus:
    if sync.sent_time is None:
        return TypeStatus(name, sync.state, error=sync.last_error)
    age = max((at - sync.sent_time).total_seconds(), 0.0)
    sent = sync.sent_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return TypeStatus(name, sync.state, sent, round(age, 3), sync.last_error)


# --- the table ----------------------------------------------------------------------------------------------


def status_table(statuses: Iterable[ProxyStatus]) -> Table:
    """The established columns, then a column for each type. Only those that an istiod knows have a row."""
    known = [status for status in statuses if status.state != "NO ISTIOD"]
    types = dict.fromkeys(found.type for status in known for found in status.types) or dict.fromkeys(TYPES)
    return Table("proxy", _COLUMNS, tuple(types), tuple(_row(status, tuple(types)) for status in known))


def _row(status: ProxyStatus, types: tuple[str, ...]) -> Row:
    subscribed = [found.type for found in status.subscribed]
    listed = f"{len(subscribed)} ({','.join(subscribed)})" if subscribed else "0"
    by_type: Mapping[str, TypeStatus] = {found.type: found for found in status.types}
    established = (status.name, status.cluster, status.istiod, status.version, listed)
    return Row(status.name, (*established, *(_cell(by_type.get(name)) for name in types)))


def _cell(found: TypeStatus | None) -> str:
    if found is None:
        return "IGNORED"
    if found.age_s is None or found.state in ("IGNORED", "NOT SENT"):
        return found.state
    return f"{found.state} ({_age(found.age_s)})"


def _age(seconds: float) -> str:
    """As kubectl tells ages: in the largest unit that gives two or more, rounded down."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def remarks(statuses: Iterable[ProxyStatus]) -> tuple[str, ...]:
    """What the established columns don't tell, a line each: refusals, proxies without istiod, other versions."""
    said = []
    for status in statuses:
        if status.state == "NO ISTIOD":
            said.append(f"{status.name}: no istiod knows it, though it has Istio's proxy")
        for found in status.types:
            if found.state == "ERROR":
                said.append(f"{status.name}: {found.type} ERROR: {found.error or 'no reason given'}")
            if found.state == "STALE":
                age = f" since {_age(found.age_s)}" if found.age_s is not None else ""
                said.append(f"{status.name}: {found.type} STALE{age}: sent, and not acknowledged")
        if status.version_differs:
            said.append(
                f"{status.name}: version {status.version}, its istiod's is {status.control_plane_version}"
            )
    return tuple(said)
