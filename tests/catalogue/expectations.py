"""Where a verdict can't be certain under a condition: which causes must then be named, and why no more can be known."""

from __future__ import annotations

import msgspec


class Undecidable(msgspec.Struct, frozen=True):
    """`causes` must all be named with a confidence of at most 0.6; none: the report must say what is unknown."""

    reason: str
    causes: frozenset[str] = frozenset()


UNDECIDABLE: dict[tuple[str, str], Undecidable] = {}
"""By (cause, condition). A condition not listed here must give the cause first, as with everything there."""
