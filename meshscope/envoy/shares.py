"""Exact shares of requests, where Envoy compares one random number a request with several fractions.

Envoy draws one number for a request and takes it modulo 100, 10 000, 1 000 000 or a total of weights, again
and again down the route list. So the fractions of one table hang together: after a route with 30 %, a second
one with 50 % gets the numbers 30 to 49, not half of the rest.
"""

from __future__ import annotations

import math

from msgspec import Struct

_MOST_SPANS = 50_000
"""Beyond this many spans fractions are taken as independent, which they very nearly are by then."""


class RandomNumbers(Struct, frozen=True):
    """A set of random numbers: those whose remainder by `modulus` lies in one of `spans` (start, end)."""

    modulus: int = 1
    spans: tuple[tuple[int, int], ...] = ((0, 1),)
    factor: float = 1.0

    @property
    def share(self) -> float:
        """The part of all numbers that is in the set, 0 to 1."""
        return self.factor * sum(end - start for start, end in self.spans) / self.modulus

    def within(self, modulus: int, low: int, high: int) -> RandomNumbers:
        """Those of the set whose remainder by `modulus` is at least `low` and below `high`."""
        high = min(high, modulus)
        if low >= high:
            return RandomNumbers(spans=())
        if self.spans == ((0, self.modulus),):
            return RandomNumbers(modulus, ((low, high),), self.factor)
        whole = math.lcm(self.modulus, modulus)
        if len(self.spans) * (whole // self.modulus) + whole // modulus > _MOST_SPANS:
            return RandomNumbers(self.modulus, self.spans, self.factor * (high - low) / modulus)
        mine = _repeated(self.spans, self.modulus, whole)
        return RandomNumbers(whole, _common(mine, _repeated(((low, high),), modulus, whole)), self.factor)

    def split(self, modulus: int, boundary: int) -> tuple[RandomNumbers, RandomNumbers]:
        """The numbers below `boundary` by `modulus`, and the others."""
        return self.within(modulus, 0, boundary), self.within(modulus, boundary, modulus)


def _repeated(spans: tuple[tuple[int, int], ...], modulus: int, whole: int) -> list[tuple[int, int]]:
    return [(base + start, base + end) for base in range(0, whole, modulus) for start, end in spans]


def _common(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            found.append((start, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)
