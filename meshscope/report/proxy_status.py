"""Writes how far the proxies' configuration came, and how one proxy differs from what istiod means it to have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from meshscope import __version__
from meshscope.istio.drift import Difference, Drift
from meshscope.istio.proxy_status import ProxyStatus, remarks, status_table
from meshscope.model.findings import Unavailable, Unknown
from meshscope.report import tables
from meshscope.report.safe import harmless
from meshscope.report.styled import Line, paint

SCHEMA = 1


class ProxyStatuses(msgspec.Struct, frozen=True):
    """What `proxy-status` answers: what failed first. `captured_at` is RFC 3339, UTC."""

    schema: int
    tool: dict[str, str]
    captured_at: str
    proxies: tuple[ProxyStatus, ...]
    unknown: tuple[Unknown, ...]


class ProxyDrift(msgspec.Struct, frozen=True):
    """What `proxy-status POD` answers: `compared` is the number of resources that istiod means it to have, by kind."""

    schema: int
    tool: dict[str, str]
    captured_at: str
    proxy: str
    istiod: str
    compared: dict[str, int]
    differences: tuple[Difference, ...]


def statuses_of(
    proxies: Sequence[ProxyStatus], problems: Sequence[Unavailable], captured_at: datetime
) -> ProxyStatuses:
    """The public document. `captured_at` is in UTC."""
    unknown = tuple(problem.unknown() for problem in problems)
    return ProxyStatuses(SCHEMA, _tool(), _time(captured_at), tuple(proxies), unknown)


def drift_of(drift: Drift, proxy: str, istiod: str, captured_at: datetime) -> ProxyDrift:
    """The public document. `captured_at` is in UTC."""
    return ProxyDrift(SCHEMA, _tool(), _time(captured_at), proxy, istiod, drift.compared, drift.differences)


def _tool() -> dict[str, str]:
    return {"name": "meshscope", "version": __version__}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def render(document: ProxyStatuses, *, wide: bool = False, color: bool = False) -> str:
    """The table that istioctl's users know; `wide` with a column for each type, and remarks below."""
    text = tables.render([status_table(document.proxies)], wide=wide, color=color)
    said = harmless(remarks(document.proxies)) if wide else ()
    return text + paint(([], *([(line, "")] for line in said)), color) if said else text


def render_drift(document: ProxyDrift, *, color: bool = False) -> str:
    """Each kind in a line, with the differences below."""
    return paint(_drift_lines(harmless(document)), color)


_WHAT = {"missing": "not in Envoy", "unexpected": "only in Envoy", "different": "different"}
_DIFF_STYLES = {"-": "red", "+": "green", "@": "cyan"}


def _drift_lines(document: ProxyDrift) -> Iterator[Line]:
    for kind, count in document.compared.items():
        found = [difference for difference in document.differences if difference.kind == kind]
        if not found:
            yield [(f"{kind.capitalize()}s match", "green"), (f" ({count})", "")]
            continue
        yield [(f"{kind.capitalize()}s don't match", "bold red"), (f" ({len(found)} differ)", "")]
        for difference in found:
            yield [(f"  {difference.name}: {_WHAT[difference.what]}", "")]
            for line in difference.text.split("\n") if difference.text else ():
                yield [("    ", ""), (line, _DIFF_STYLES.get(line[:1], ""))]
