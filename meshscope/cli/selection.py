"""What a person named, and a helpful answer where that is nothing, or several things."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say
from meshscope.facts.mesh import Mesh
from meshscope.facts.proxy import Proxy
from meshscope.facts.select import (
    BadSelector,
    NotFound,
    SelectionError,
    Selector,
    parse_selector,
    proxies_named,
)
from meshscope.model.findings import Unavailable
from meshscope.model.names import OUTSIDE

_FEW = 20


def selector(text: str, namespace: str) -> Selector | None:
    """FROM or TO as written; a name without a namespace is in `namespace`. None where nothing was named."""
    if not text:
        return None
    return parse_selector(text, "" if text == OUTSIDE.name else namespace)


@contextmanager
def understood() -> Iterator[None]:
    """Turns a name that isn't one thing's into wrong usage, with what it could have been."""
    try:
        yield
    except SelectionError as error:
        raise CommandError(str(error), details=_candidates(error)) from error


def _candidates(error: SelectionError) -> tuple[str, ...]:
    if isinstance(error, BadSelector):
        return ()  # The message says it all.
    if not isinstance(error, NotFound):
        return error.candidates[:_FEW]
    wanted = str(error).rpartition(" ")[2]
    close = difflib.get_close_matches(wanted, error.candidates, 5, cutoff=0.5)
    return tuple(close) or error.candidates[:_FEW]


def one_proxy(mesh: Mesh, text: str, namespace: str) -> Proxy:
    """The proxy named; of a workload's several the first."""
    with understood():
        found = proxies_named(mesh, parse_selector(text, namespace))
    if not found:
        raise CommandError(f"{text} has no proxy that can be read", Exit.UNREACHABLE)
    if len(found) > 1:
        others = ", ".join(str(proxy.id) for proxy in found[1:_FEW])
        say(f"{text} has {len(found)} pods: this is {found[0].id}; there are {others}, too")
    return found[0]


def unreachable(what: Unavailable) -> CommandError:
    """A part that the answer can't do without isn't there."""
    return CommandError(f"{what.what}: {what.why}", Exit.UNREACHABLE, (what.remedy,) if what.remedy else ())
