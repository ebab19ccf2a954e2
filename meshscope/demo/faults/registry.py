"""Registers faults and finds them by name; each section of the causes is a module beside this one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshscope.demo.spec import MeshSpec

if TYPE_CHECKING:
    from meshscope.demo.mesh import DemoMesh

Change = Callable[[MeshSpec], None]
Step = Callable[["DemoMesh"], None]

_SECTIONS = {
    "identity_tls": "Identity and TLS",
    "authorization": "Authorization",
    "circuit_breaking": "Circuit breaking and outliers",
    "routing": "Routing",
    "endpoints": "Endpoints and upstream",
    "time_limits_protocol": "Time, faults, limits, protocol",
    "control_plane": "Control plane and injection",
}


@dataclass(frozen=True)
class Fault:
    """A fault named for its cause. `change` alters the mesh before it starts, `after_start` the running one.

    `settle_seconds` is how long traffic must flow until the fault shows in logs and counters.
    """

    name: str
    title: str
    section: str
    change: Change
    after_start: Step | None = None
    settle_seconds: float = 1.0


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue; `reason` says why a fault can't be made on loopback."""

    name: str
    title: str
    section: str
    available: bool
    reason: str = ""


class UnknownFaultError(Exception):
    """There is no such fault, or it can't be made on loopback."""


_faults: dict[str, Fault] = {}
_entries: dict[str, Entry] = {}


def fault(
    name: str, title: str, *, after_start: Step | None = None, settle_seconds: float = 1.0
) -> Callable[[Change], Change]:
    """Register the decorated change under the cause's id; the module's name gives the section."""

    def register(change: Change) -> Change:
        section = _SECTIONS[change.__module__.rpartition(".")[2]]
        _add(Entry(name, title, section, available=True))
        _faults[name] = Fault(name, title, section, change, after_start, settle_seconds)
        return change

    return register


def cannot(name: str, title: str, section: str, reason: str) -> None:
    """List a cause that can't be made on loopback, and why. `section` is the module's __name__."""
    _add(Entry(name, title, _SECTIONS[section.rpartition(".")[2]], available=False, reason=reason))


def catalogue() -> list[Entry]:
    """Every fault, by section, in the order of the causes."""
    _load()
    order = list(_SECTIONS.values())
    return sorted(_entries.values(), key=lambda entry: order.index(entry.section))


def find(name: str) -> Fault:
    """The fault of that name. Raises UnknownFaultError."""
    _load()
    if name in _faults:
        return _faults[name]
    entry = _entries.get(name)
    if entry:
        raise UnknownFaultError(f"{name} can't be made on loopback: {entry.reason}")
    raise UnknownFaultError(f"no fault {name}; `meshscope demo --list` shows them all")


def _add(entry: Entry) -> None:
    if entry.name in _entries:
        raise ValueError(f"the fault {entry.name} is registered twice")
    _entries[entry.name] = entry


def _load() -> None:
    for module in _SECTIONS:
        importlib.import_module(f"meshscope.demo.faults.{module}")
