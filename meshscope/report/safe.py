"""Makes untrusted text harmless for a terminal, a document or a chat, and keeps it recognisable."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

# Unicode's controls (C0, DEL, C1), format characters that show as nothing or turn the direction of writing
# (bidi, zero width, tags), lone surrogates, line breaks that some terminals
# and parsers honour, and blank letters.
HOSTILE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e01ef]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Prose and pasteable text; every other string of a report is one line.
_MULTI_LINE = frozenset({"explanation", "text"})

# What must never leave a mesh, wherever it turns up: keys, tokens, credentials in headers.
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"
    r"|(?<=bearer )[\w.~+/-]{8,}=*"
    r"|(?<=authorization: )(?:basic|digest|negotiate|token) \S+"
    r"|(?<=cookie: )[^\s\"']+=[^\"'\n]*",
    re.IGNORECASE | re.DOTALL,
)
# One of these is in every text that _SECRET finds anything in; to look for them is a hundred times faster.
_SECRET_HINTS = ("private key-----", "eyj", "bearer ", "authorization: ", "cookie: ")
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
REDACTED = "[redacted]"

_ASCII = str.maketrans(
    {"→": "->", "…": "...", "–": "-", "’": "'"} | dict(zip("·✓✗├└│─", "-+x|`|-", strict=True))
)


def escape(char: str) -> str:
    """A character as Python would write it: \\x1b, \\u202e, \\U000e0041."""
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Text in which everything that isn't visible, line breaks included, is written out."""
    return HOSTILE.sub(lambda found: escape(found[0]), text)


def block(text: str) -> str:
    """The same with line breaks kept; tabs become spaces."""
    return "\n".join(one_line(line.expandtabs(4)) for line in text.split("\n"))


def redact(text: str) -> str:
    """Text without keys, tokens and credentials."""
    lowered = text.lower()
    if not any(hint in lowered for hint in _SECRET_HINTS):
        return text
    return _SECRET.sub(REDACTED, text)


def harmless(value: T) -> T:
    """A report, or any part of one, with every string redacted and made visible."""
    return cast(T, _each_string(value, one_line))


def well_formed(value: T) -> T:
    """The same for formats that have their own escapes: redacted, and lone surrogates written out."""
    return cast(T, _each_string(value, _without_surrogates))


def _without_surrogates(text: str) -> str:
    return _SURROGATE.sub(lambda found: escape(found[0]), text)


def _each_string(value: Any, treat: Any) -> Any:
    if isinstance(value, str):
        return treat(redact(value))
    if isinstance(value, dict):
        return {_each_string(key, treat): _each_string(item, treat) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each_string(item, treat) for item in value)
    if isinstance(value, msgspec.Struct):
        return _each_field(value, treat)
    return value


def _each_field(struct: msgspec.Struct, treat: Any) -> msgspec.Struct:
    changes = {}
    for name in struct.__struct_fields__:
        multi_line = treat is one_line and name in _MULTI_LINE
        changes[name] = _each_string(getattr(struct, name), block if multi_line else treat)
    return msgspec.structs.replace(struct, **changes)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; what is too much goes from the middle, as a log line begins with what counts."""
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 4
    return f"{text[: limit - 3 - tail]} … {text[len(text) - tail :]}"


def encodable(text: str, encoding: str | None) -> str:
    """Text that an output of this encoding can take: plain ASCII where it isn't a Unicode one."""
    if (encoding or "ascii").lower().replace("_", "-").startswith("utf"):
        return text
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
