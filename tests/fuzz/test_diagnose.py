"""Diagnosing a damaged bundle ends in a report that says what it couldn't read, never in an exception."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshscope.diagnose.diagnose import diagnose
from meshscope.facts.mesh import Mesh
from meshscope.model.findings import Report, Unavailable
from meshscope.model.names import ProxyId
from meshscope.report.json import render
from meshscope.sources.kubernetes_documents import decode
from meshscope.sources.source import Capture, Part, Read
from meshscope.walk.trace import trace
from tests.recordings import files

RECORDING = "authz-deny"
PROXIES = ("reviews-v2", "ratings-v1")


class DamagedSource:
    """A fake source: two proxies of a recording, with some of their files damaged."""

    def __init__(self, damage: dict[str, bytes]) -> None:
        self._files = {**recorded(), **damage}
        self.capture = Capture(datetime(2026, 11, 23, 12, 27, 19, tzinfo=UTC), "recorded", ("istio",))

    def proxies(self) -> tuple[ProxyId, ...]:
        return tuple(
            sorted({ProxyId(*path.split("/")[1:3]) for path in self._files if path.startswith("proxies/")})
        )

    def read(self, proxy: ProxyId, part: Part) -> bytes | Unavailable:
        path = f"proxies/{proxy.namespace}/{proxy.pod}/{part.value}"
        return self._files.get(path, Unavailable(path, "not in the bundle"))

    def kubernetes(self) -> Read | Unavailable:
        found = [decode(raw, path) for path, raw in self._files.items() if path.startswith("kubernetes/")]
        return Read(
            tuple(o for read in found for o in read.objects),
            tuple(p for read in found for p in read.problems),
        )

    def control_planes(self) -> tuple[str, ...]:
        return tuple({path.split("/")[1] for path in self._files if path.startswith("istiod/")})

    def read_control_plane(self, pod: str, path: str) -> bytes | Unavailable:
        return self._files.get(f"istiod/{pod}/{path}", Unavailable(path, "not in the bundle"))

    def close(self) -> None:
        pass


@cache
def recorded() -> dict[str, bytes]:
    return {
        path: raw
        for path, raw in files(RECORDING).items()
        if not path.startswith("proxies/") or path.split("/")[2].startswith(PROXIES)
    }


def damaged(raw: bytes, how: str, seed: int) -> bytes:
    chance = random.Random(seed)
    if how == "empty":
        return b""
    if how == "truncated":
        return raw[: chance.randrange(len(raw) or 1)]
    if how == "other-json":
        return chance.choice(
            [b"null", b"[]", b"{}", b'"text"', b'{"configs": 7}', b'{"configs": [{}]}', b"[" * 5000]
        )
    changed = bytearray(raw)
    for _ in range(chance.randrange(1, 30)):
        where = chance.randrange(len(changed) or 1)
        if how == "flipped":
            changed[where : where + 1] = bytes([chance.randrange(256)])
        else:
            changed[where : where + chance.randrange(40)] = changed[chance.randrange(len(changed)) :][:20]
    return bytes(changed)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(recorded())),
            st.sampled_from(["empty", "truncated", "other-json", "flipped", "shuffled"]),
            st.integers(0, 2**32),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_damage_ends_in_a_report(damage: list[tuple[str, str, int]]) -> None:
    source = DamagedSource({path: damaged(recorded()[path], how, seed) for path, how, seed in damage})
    report = diagnose(Mesh(source))
    assert isinstance(report, Report)
    assert not [unknown for unknown in report.unknown if unknown.what.startswith("rule ")], report.unknown
    assert render(report)


@pytest.mark.parametrize("how", ["empty", "truncated", "other-json"])
def test_an_unreadable_dump_is_named(how: str) -> None:
    path = next(path for path in recorded() if "ratings" in path and path.endswith("config_dump.json"))
    report = diagnose(Mesh(DamagedSource({path: damaged(recorded()[path], how, 3)})))
    assert any(
        "config_dump.json" in unknown.what and "ratings-v1" in unknown.what for unknown in report.unknown
    )


def test_a_trace_through_an_unreadable_dump_is_unknown() -> None:
    path = next(path for path in recorded() if "ratings" in path and path.endswith("config_dump.json"))
    mesh = Mesh(DamagedSource({path: b"{"}))
    walks = trace(mesh, "reviews-v2", "GET", "http://ratings:9080/ratings/0")
    assert walks[0].branches[0].outcome in {"unknown", "fail"}
