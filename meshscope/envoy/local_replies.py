"""Envoy's own answers: what the size of a body tells where only the caller's side of a reply was seen."""

from __future__ import annotations

from itertools import product

# Router::Filter (source/common/router/router.cc): the text that Envoy sends when it had to give up on an upstream.
_GAVE_UP = "upstream connect error or disconnect/reset before headers. "
_RETRIED = ("", "retried and the latest ")
OVERLOADED = "envoy overloaded"
"""ConnectionManagerImpl: the body of what the overload manager refuses."""


def reset_bodies(reason: str, *failures: str) -> frozenset[int]:
    """The sizes in bytes that Envoy's own answer to this reset reason has, with and without retries.

    `failures` are transport failure reasons, which older versions add.
    """
    added = ("", *(f", transport failure reason: {failure}" for failure in failures))
    return frozenset(
        len(f"{_GAVE_UP}{retried}reset reason: {reason}{more}") for retried, more in product(_RETRIED, added)
    )
