"""What Envoy's connection manager makes of paths; every case was seen on a real Envoy."""

from __future__ import annotations

import pytest

from meshscope.envoy.config_dump import HttpConnectionManager
from meshscope.envoy.paths import SanitizedPath, rfc_normalized, sanitized


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/./b/../c", "/a/c"),
        ("/../../a", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/...", "/a/..."),
        ("/a..", "/a.."),
        ("/a\\..\\b", "/b"),
        ("/%41%7e%2D", "/A~-"),
        ("/%2f%c3%a9", "/%2f%c3%a9"),
        ("/a%zz%", "/a%zz%"),
        # A stray % that would become an escape by what is unescaped after it.
        ("/%4%61-", "/%254a-"),
        # A dot segment loses its parameters, unless its dots are escaped.
        ("/a/..;x/b", "/b"),
        ("/a/.;x/b", "/a/b"),
        ("/q/w/..;x\\e", "/q/"),
        ("/a/%2e%2e;x/b", "/a/..;x/b"),
        ("/a/...;x/b", "/a/...;x/b"),
        ("/;", "/;"),
        ("/%00", None),
    ],
)
def test_rfc_normalization(path: str, expected: str | None) -> None:
    assert rfc_normalized(path) == expected


@pytest.mark.parametrize(("path", "expected"), [("//a///b//", "/a/b/"), ("//", "//"), ("/a?x=//", "/a?x=//")])
def test_merging_slashes(path: str, expected: str) -> None:
    assert sanitized(HttpConnectionManager(merge_slashes=True), path) == SanitizedPath(expected)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("", SanitizedPath("/a%2Fb%5cc?%2f")),
        ("KEEP_UNCHANGED", SanitizedPath("/a%2Fb%5cc?%2f")),
        ("UNESCAPE_AND_FORWARD", SanitizedPath("/a/b\\c?%2f")),
        ("UNESCAPE_AND_REDIRECT", SanitizedPath("/a/b\\c?%2f", "redirect")),
        ("REJECT_REQUEST", SanitizedPath("/a%2Fb%5cc?%2f", "reject")),
    ],
)
def test_escaped_slashes(action: str, expected: SanitizedPath) -> None:
    manager = HttpConnectionManager(path_with_escaped_slashes_action=action)
    assert sanitized(manager, "/a%2Fb%5cc?%2f") == expected
    assert sanitized(manager, "/a?%2f") == SanitizedPath("/a?%2f")


def test_a_fragment_is_refused() -> None:
    assert sanitized(HttpConnectionManager(), "/a#b").action == "reject"


def test_escaped_slashes_come_before_dot_segments_and_these_before_merging() -> None:
    manager = HttpConnectionManager(
        normalize_path=True, merge_slashes=True, path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD"
    )
    assert sanitized(manager, "/a%2f..%2f/b//c?d").path == "/b/c?d"
