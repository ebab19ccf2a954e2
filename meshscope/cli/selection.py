"""What a person named, and a helpful answer where that is nothing, or several things."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from meshscope.cli.exits import CommandError
from meshscope.facts.select import NotFound, SelectionError, Selector, parse_selector
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
    if not isinstance(error, NotFound):
        return error.candidates[:_FEW]
    wanted = str(error).rpartition(" ")[2]
    close = difflib.get_close_matches(wanted, error.candidates, 5, cutoff=0.5)
    return tuple(close) or error.candidates[:_FEW]
