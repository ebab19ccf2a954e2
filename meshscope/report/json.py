"""Writes documents as JSON."""

from __future__ import annotations

import re

import msgspec
import orjson

from meshscope.report.safe import HOSTILE, well_formed

# orjson indents with line feeds; inside its strings they are always escaped already.
_HOSTILE_IN_JSON = re.compile(HOSTILE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f", 1))


def render(document: msgspec.Struct) -> str:
    """A document as indented JSON; what could act on a terminal is written as \\u escapes."""
    builtin = msgspec.to_builtins(well_formed(document))
    text = orjson.dumps(builtin, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
    return escaped(text)


def escaped(text: str) -> str:
    """Indented JSON in which what could act on a terminal is written as \\u escapes."""
    return _HOSTILE_IN_JSON.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
