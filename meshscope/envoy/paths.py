"""What Envoy's connection manager does to a request's path before anything is matched against it.

The order is Envoy's: escaped slashes, then RFC 3986 normalization (Chromium's URL canonicalizer inside
Envoy), then merging of slashes. The query is never touched.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from meshscope.envoy.config_dump import HttpConnectionManager

_HEX = frozenset("0123456789abcdefABCDEF")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED = frozenset(' "#<>?`{}^|') | frozenset(map(chr, range(0x20))) | {"\x7f"}
_ESCAPED_SLASH = re.compile("%(2[Ff]|5[Cc])")


class SanitizedPath(Struct, frozen=True):
    """The path as it goes on, and whether the request goes on at all (400 `reject`, 307 `redirect`)."""

    path: str
    action: Literal["continue", "redirect", "reject"] = "continue"


def sanitized(manager: HttpConnectionManager, path: str) -> SanitizedPath:
    """`path` (query included) after the manager's path options."""
    if "#" in path:
        return SanitizedPath(path, "reject")
    bare, mark, query = path.partition("?")
    action: Literal["continue", "redirect"] = "continue"
    if manager.path_with_escaped_slashes_action in _UNESCAPING:
        unescaped = _ESCAPED_SLASH.sub(lambda found: "/" if found[1].upper() == "2F" else "\\", bare)
        if unescaped != bare:
            if manager.path_with_escaped_slashes_action == "REJECT_REQUEST":
                return SanitizedPath(path, "reject")
            if manager.path_with_escaped_slashes_action == "UNESCAPE_AND_REDIRECT":
                action = "redirect"
        bare = unescaped
    if manager.normalize_path:
        normal = rfc_normalized(bare)
        if normal is None:
            return SanitizedPath(path, "reject")
        bare = normal
    if manager.merge_slashes:
        bare = _slashes_merged(bare)
    return SanitizedPath(bare + mark + query, action)


def _slashes_merged(path: str) -> str:
    """Runs of slashes become one; a path of slashes alone becomes two, as Envoy has it."""
    if "//" not in path:
        return path
    segments = "/".join(segment for segment in path.split("/") if segment)
    return "/" * path.startswith("/") + segments + "/" * path.endswith("/")


_UNESCAPING = frozenset({"REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"})


_DOT_SEGMENT_PARAMETERS = re.compile(r"(?<=/)(\.\.?);[^/]*")


def rfc_normalized(path: str) -> str | None:
    """The path (without query), dot segments removed, escapes made uniform; None where it is refused.

    A dot segment loses its parameters first (`..;x` is `..`), where its dots aren't escaped.
    """
    path = _DOT_SEGMENT_PARAMETERS.sub(r"\1", path)
    output: list[str] = []
    at = 0
    while at < len(path):
        dot = _dot_length(path, at)
        if dot and output and output[-1] == "/":
            at = _after_dot_segment(path, at, dot, output)
        elif dot:
            output.append(".")
            at += dot
        elif path[at] == "%":
            at = _after_percent(path, at, output)
            if at < 0:
                return None
        else:
            output.extend(_canonical(path[at]))
            at += 1
    return "".join(output).replace(_STRAY_PERCENT, "%")


def _dot_length(path: str, at: int) -> int:
    if path.startswith(".", at):
        return 1
    return 3 if path[at : at + 3].lower() == "%2e" else 0


def _is_slash(path: str, at: int) -> bool:
    return path[at : at + 1] in ("/", "\\")


def _after_dot_segment(path: str, at: int, dot: int, output: list[str]) -> int:
    """Where to go on after the dot at `at`, which follows a slash; backs `output` up for `..`."""
    after = at + dot
    if after == len(path):
        return after
    if _is_slash(path, after):
        return after + 1
    second = _dot_length(path, after)
    end = after + second
    if second and (end == len(path) or _is_slash(path, end)):
        _back_up(output)
        return end + (end < len(path))
    output.append(".")
    return after


def _back_up(output: list[str]) -> None:
    """Removes the last segment, leaving the slash before it; nothing goes above the root."""
    if len(output) > 1:
        output.pop()
        while output[-1] != "/":
            output.pop()


_STRAY_PERCENT = "\ufffe"
"""Stands in the output for a `%` that begins no escape, which matters until the two places after it are full."""


def _after_percent(path: str, at: int, output: list[str]) -> int:
    """Writes what becomes of the `%` at `at`; where to go on after it, -1 where the path is refused."""
    digits = path[at + 1 : at + 3]
    if len(digits) < 2 or not _HEX.issuperset(digits):
        output.append(_STRAY_PERCENT)
        return at + 1
    character = chr(int(digits, 16))
    if character == "\x00":
        return -1
    if character in _UNRESERVED:
        output.append(character)
        _keep_stray(output, path[at + 3 : at + 4])
    else:
        output.extend(path[at : at + 3])
    return at + 3


def _keep_stray(output: list[str], following: str) -> None:
    """Escapes a stray `%` that the character just unescaped would turn into the beginning of an escape."""
    for place, after in ((-3, output[-2:]), (-2, [*output[-1:], following])):
        if output[place : place + 1 or None] == [_STRAY_PERCENT] and all(
            each and each in _HEX for each in after
        ):
            output[place : place + 1] = ["%", "2", "5"]
            return


def _canonical(character: str) -> str:
    if character == "\\":
        return "/"
    if character in _ESCAPED or ord(character) > 0x7F:
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character
