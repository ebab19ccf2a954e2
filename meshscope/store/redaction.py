"""Takes secrets out of what is kept: private keys, tokens, credentials in headers, URLs and variables."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import orjson

from meshscope.sources.kubernetes_documents import LAST_APPLIED, REDACTED, without_values

_REDACTED_BYTES = base64.b64encode(REDACTED.encode()).decode()
"""What Envoy itself writes into `inline_bytes` that it redacts."""

_HEADERS = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
)
_HOLDERS = frozenset(
    {
        "private_key",
        "password",
        "passphrase",
        "session_ticket_keys",
        "generic_secret",
        "token_secret",
        "hmac_secret",
        "client_secret",
        "secret_access_key",
        "session_token",
        "access_token",
        "refresh_token",
        "id_token",
        "api_key",
        "bearer_token",
    }
)
"""Fields of Envoy's and others' configuration that hold a secret, in snake case."""
_INLINE = frozenset({"inline_bytes", "inline_string"})
"""Envoy's DataSource: the content itself, where `filename` and `environment_variable` only say where it is."""
_VALUES = frozenset({"value", "raw_value", "exact", "exact_match"})
"""What stands beside the name of a header or variable and is its value; patterns and presence stay readable."""

_SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:pass(?:word|wd|phrase)|secret|token|credentials?|api[_-]?key|private[_-]?key)"
)
_WHERE_NAME = re.compile(r"(?i)[_.-](?:file|path|dir|name|url|uri|endpoint|audience|issuer|ttl|lifetime)s?$")
_OPERATOR = re.compile(r"%[A-Z_]+(?:\([^)]*\))?(?::\d+)?%")
"""A command of an access log's format, which says what is logged and isn't it."""


def redact_json(value: Any) -> Any:
    """JSON's types without secrets; the very same object where there is none. Raises RecursionError if too deep."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return _changed_list(value, redact_json)
    if isinstance(value, dict):
        return _redact_mapping(value)
    return value


def redact_variables(value: Any) -> Any:
    """The same for a mapping of variables, where a name says that a value is secret."""
    if not isinstance(value, dict):
        return redact_json(value)
    return _changed(value, lambda name, inner: REDACTED if _is_secret(name, inner) else redact_json(inner))


def redact_object(body: dict[str, Any]) -> dict[str, Any]:
    """A Kubernetes object without secrets, and without the copy that `kubectl apply` keeps of itself."""
    if body.get("kind") == "Secret" and body.get("apiVersion") == "v1":
        body = without_values(body)
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and isinstance(annotations := metadata.get("annotations"), dict):
        kept = {name: text for name, text in annotations.items() if name != LAST_APPLIED}
        body = {**body, "metadata": {**metadata, "annotations": kept}}
    if body.get("kind") == "ConfigMap" and "data" in body:
        body = {**body, "data": redact_variables(body["data"])}
    redacted = redact_json(body)
    assert isinstance(redacted, dict)
    return redacted


def _redact_mapping(mapping: dict[str, Any]) -> dict[str, Any]:
    named = mapping.get("name", mapping.get("key"))
    if isinstance(named, str) and (_normal(named) in _HEADERS or _SECRET_NAME.search(named)):
        return _changed(mapping, lambda field, inner: _redact_named(named, field, inner))
    return _changed(mapping, _redact_field)


def _redact_field(field: str, inner: Any) -> Any:
    if _snake(field) in _HOLDERS:
        return _redact_held(inner)
    if _normal(field) in _HEADERS:
        return _redact_leaves(inner)
    return redact_json(inner)


def _redact_named(named: str, field: str, inner: Any) -> Any:
    """A field beside `name: authorization` or `key: DB_PASSWORD`."""
    if field in _VALUES and _is_secret(named, inner):
        return REDACTED
    if field == "string_match" and isinstance(inner, dict):
        return _changed(inner, lambda kind, text: _redact_named(named, kind, text))
    return _redact_field(field, inner)


def _is_secret(name: str, value: Any) -> bool:
    """Whether a value is a secret by its name; a path to one or a format that would print one is none."""
    if not isinstance(value, str) or not value or _OPERATOR.fullmatch(value):
        return False
    return _normal(name) in _HEADERS or bool(_SECRET_NAME.search(name) and not _WHERE_NAME.search(name))


def _redact_held(value: Any) -> Any:
    """What a field like `private_key` holds: the content goes, a reference to it stays."""
    if isinstance(value, str):
        return REDACTED if value else value
    if isinstance(value, list):
        return _changed_list(value, _redact_held)
    if isinstance(value, dict):
        return _changed(value, _redact_source)
    return value


def _redact_source(field: str, inner: Any) -> Any:
    if field in _INLINE and isinstance(inner, str):
        redacted = _REDACTED_BYTES if field == "inline_bytes" else REDACTED
        return inner if inner == redacted else redacted
    return _redact_held(inner) if isinstance(inner, dict | list) else redact_json(inner)


def _redact_leaves(value: Any) -> Any:
    """The value or values of a header; of a matcher (`exact`, `regex`, …) only what is a value."""
    if isinstance(value, str):
        return value if not value or _OPERATOR.fullmatch(value) else REDACTED
    if isinstance(value, list):
        return _changed_list(value, _redact_leaves)
    if isinstance(value, dict):
        return _changed(value, lambda field, inner: REDACTED if field in _VALUES else redact_json(inner))
    return value


def _changed(mapping: dict[str, Any], redact: Callable[[str, Any], Any]) -> dict[str, Any]:
    changed = {key: new for key, old in mapping.items() if (new := redact(key, old)) is not old}
    return {**mapping, **changed} if changed else mapping


def _changed_list(values: list[Any], redact: Callable[[Any], Any]) -> list[Any]:
    new = [redact(value) for value in values]
    return new if any(after is not before for after, before in zip(new, values, strict=True)) else values


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _snake(name: str) -> str:
    return _HUMP.sub("_", name).lower().replace("-", "_")


# --- text -------------------------------------------------------------------------------------------------


def _without_encoded_key(found: re.Match[str]) -> str:
    head = found[0][:80]
    try:
        decoded = base64.b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return found[0]
    return REDACTED if b"PRIVATE KEY" in decoded else found[0]


_HEADER = "|".join(_HEADERS)
_PARAMETER = "access_token|id_token|refresh_token|token|api_?key|password|passwd|secret|client_secret|auth|sig|signature"
_TEXT: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str], str], ...] = (
    # A word that must be there (in lower case) spares most texts the search.
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        REDACTED,
        "private key-----",
    ),
    # base64 of "-----BEGIN"
    (re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{20,}=*"), _without_encoded_key, "ls0tls1crudjti"),
    # JWS and JWE: base64 of '{"', then two to four more parts
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){2,4}"), REDACTED, "eyj"),
    (re.compile(r"(?i)\b(bearer|basic|negotiate)\s+(?!realm=)[\w+/.~=-]{8,}"), rf"\1 {REDACTED}", ""),
    (
        re.compile(
            rf"(?i)((?<![\w-])(?:{_HEADER})(?:['\"]?\s*[:=]\s*|['\"]\s*,\s*(?=['\"])|\\\"\s*:\s*))"
            rf"(?!\s*(?:\{{|\[|%|{re.escape(REDACTED)}))"
            r"(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\\\".*?\\\"|[^\s\"'\\][^\r\n]*)"
        ),
        rf"\1{REDACTED}",
        "",
    ),
    (re.compile(r"(\w://[^/\s:@\"']*):[^@/\s\"']+@"), rf"\1:{REDACTED}@", "://"),
    (re.compile(rf"(?i)([?&](?:{_PARAMETER})=)[^&\s\"'#\\]+"), rf"\1{REDACTED}", "="),
    # Keys of a JSON Web Key Set that are private or symmetric (RFC 7518, 6)
    (re.compile(r"(\\?\"(?:k|d|p|q|dp|dq|qi)\\?\"\s*:\s*\\?\")[\w+/=-]{8,}"), rf"\1{REDACTED}", '"kty'),
)
_SUSPECTS = re.compile(r"(?i)bearer|basic|negotiate|" + _HEADER)


def redact_text(text: str) -> str:
    """Text without secrets; the very same object where there is none."""
    lowered = text.lower()
    suspect = _SUSPECTS.search(lowered) is not None
    for pattern, replacement, word in _TEXT:
        if word in lowered if word else suspect:
            redacted = pattern.sub(replacement, text)
            text = text if redacted == text else redacted
    return text


# --- files ------------------------------------------------------------------------------------------------


def redact_bytes(data: bytes) -> bytes:
    """A text file; bytes that aren't text pass as they are."""
    text = data.decode("latin-1")
    redacted = redact_text(text)
    return data if redacted is text else redacted.encode("latin-1")


def redact_document(data: bytes, redact: Callable[[Any], Any] = redact_json) -> bytes | None:
    """A JSON file; None where it can't be read, so that nobody knows what is in it."""
    if not data.strip():
        return data
    try:
        document = orjson.loads(data)
        redacted = redact(document)
    except (orjson.JSONDecodeError, RecursionError):
        return None
    return data if redacted is document else orjson.dumps(redacted, option=orjson.OPT_INDENT_2)
