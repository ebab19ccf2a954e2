"""Reads a proxy container's log: access log lines (Istio's text format and JSON) and Envoy's own messages."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

LINE_LIMIT = 2000
"""Characters of a line that are kept for quoting; all of a line is read."""


class AccessLogEntry(Struct, frozen=True):
    """One access log line; text fields are "" where Envoy wrote `-` or null, `number` is the file's line (from 1)."""

    start_time: datetime | None = None
    method: str = ""
    path: str = ""
    protocol: str = ""
    response_code: int = 0
    response_flags: frozenset[str] = frozenset()
    response_code_details: str = ""
    connection_termination_details: str = ""
    upstream_transport_failure_reason: str = ""
    bytes_received: int = 0
    bytes_sent: int = 0
    duration_ms: int | None = None
    upstream_service_time: str = ""
    x_forwarded_for: str = ""
    user_agent: str = ""
    request_id: str = ""
    authority: str = ""
    upstream_host: str = ""
    upstream_cluster: str = ""
    upstream_local_address: str = ""
    downstream_local_address: str = ""
    downstream_remote_address: str = ""
    requested_server_name: str = ""
    route_name: str = ""
    line: str = ""
    number: int = 0


class EnvoyMessage(Struct, frozen=True):
    """A line Envoy (or its agent) wrote about itself. `logger` is Envoy's own word (`config`, `main`, …)."""

    time: datetime | None
    level: str
    logger: str
    text: str
    line: str
    number: int


class ProxyLog(Struct, frozen=True):
    """A proxy container's log; `unreadable` counts lines that are neither (cut, or another program's)."""

    entries: tuple[AccessLogEntry, ...] = ()
    messages: tuple[EnvoyMessage, ...] = ()
    unreadable: int = 0


# What `kubectl logs --timestamps --prefix` and container runtimes put before a line.
_PREFIX = re.compile(
    rb"(?:\[pod/[^\]\s]*\] )?"
    rb"(?:\d{4}-\d\d-\d\dT[\d:.]{8,18}(?:Z|[+-]\d\d:\d\d) (?:std(?:out|err) [FP] )?)?"
)

# Istio's default text format. Envoy doesn't escape in it: a user agent may hold quotes. Fields before it have
# no spaces, those after it no quotes, so only the user agent is greedy, and only where the strict form fails.
_HEAD = (
    r'\[(?P<start_time>[^\]\s]+)\] "(?P<method>\S+) (?P<path>\S+) (?P<protocol>[^"\s]+)" '
    r"(?P<response_code>[0-9]{1,9}) (?P<response_flags>\S+) (?P<response_code_details>\S+) "
    r'(?P<connection_termination_details>[^"]+?) "(?P<upstream_transport_failure_reason>[^"]*)" '
    r"(?P<bytes_received>[0-9]{1,18}) (?P<bytes_sent>[0-9]{1,18}) (?P<duration>[0-9]{1,18}|-) "
    r'(?P<upstream_service_time>\S+) "(?P<x_forwarded_for>[^"]*)" '
)
_TAIL = (
    r'"(?P<user_agent>%s)" "(?P<request_id>[^"]*)" "(?P<authority>[^"\s]*)" "(?P<upstream_host>[^"\s]*)" '
    r"(?P<upstream_cluster>\S+) (?P<upstream_local_address>\S+) (?P<downstream_local_address>\S+) "
    r'(?P<downstream_remote_address>\S+) (?P<requested_server_name>\S+) (?P<route_name>[^"\r\n]+?)\s*\Z'
)
_TEXT = re.compile(_HEAD + _TAIL % '[^"]*')
_QUOTES = re.compile(_HEAD + _TAIL % ".*")
_TEXT_FIELDS = tuple(
    name for name in AccessLogEntry.__struct_fields__ if name not in ("duration_ms", "line", "number")
)

_ISTIO_MESSAGE = re.compile(
    r"(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d))\t(trace|debug|info|warn|warning|error|critical|fatal)\t(.*)",
    re.DOTALL,
)
_STOCK_MESSAGE = re.compile(
    r"\[(\d{4}-\d\d-\d\d [\d:.]+)\]\[\d+\]\[(\w+)\]\[([^\]]*)\] (?:\[[^\]]*\] )?(.*)", re.DOTALL
)
_MESSAGE_MAX = 8000


class _JsonLine(Struct, frozen=True, rename={"duration_ms": "duration"}):
    """An access log line in Istio's JSON encoding, or one of its own messages (`level`, `scope`, `msg`)."""

    start_time: str | None = None
    method: str | None = None
    path: str | None = None
    protocol: str | None = None
    response_code: int | None = None
    response_flags: str | None = None
    response_code_details: str | None = None
    connection_termination_details: str | None = None
    upstream_transport_failure_reason: str | None = None
    bytes_received: int | None = None
    bytes_sent: int | None = None
    duration_ms: int | None = None
    upstream_service_time: str | None = None
    x_forwarded_for: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    authority: str | None = None
    upstream_host: str | None = None
    upstream_cluster: str | None = None
    upstream_local_address: str | None = None
    downstream_local_address: str | None = None
    downstream_remote_address: str | None = None
    requested_server_name: str | None = None
    route_name: str | None = None
    time: str | None = None
    level: str | None = None
    scope: str | None = None
    msg: str | None = None


_JSON = msgspec.json.Decoder(_JsonLine)
_ANY_JSON = msgspec.json.Decoder(dict[str, Any])


def read_log(raw: bytes) -> ProxyLog:
    """Reads a proxy container's log: both access log encodings and Envoy's messages, mixed as they come."""
    reader = _Reader()
    for number, line in enumerate(io.BytesIO(raw), 1):
        reader.add(line.rstrip(b"\r\n"), number)
    return reader.log()


class _Reader:
    """Collects entries and messages; a line that is neither continues the message right before it."""

    def __init__(self) -> None:
        self._entries: list[AccessLogEntry] = []
        self._messages: list[EnvoyMessage] = []
        self._unreadable = 0
        self._continues = False

    def log(self) -> ProxyLog:
        return ProxyLog(tuple(self._entries), tuple(self._messages), self._unreadable)

    def add(self, line: bytes, number: int) -> None:
        body = line
        if not line.startswith((b"{", b"[2")):
            prefix = _PREFIX.match(line)
            body = line[prefix.end() :] if prefix else line
        if not body.strip():
            return
        found = _json_line(body, number) if body.startswith(b"{") else _text_line(body, number)
        if isinstance(found, AccessLogEntry):
            self._entries.append(found)
            self._continues = False
        elif isinstance(found, EnvoyMessage):
            self._messages.append(found)
            self._continues = True
        elif self._continues and not body.startswith((b"{", b"[2")):
            self._continue_message(body)
        else:
            self._unreadable += 1
            self._continues = False

    def _continue_message(self, body: bytes) -> None:
        # Envoy writes a refused update's reasons on lines of their own.
        message = self._messages[-1]
        if len(message.text) < _MESSAGE_MAX:
            text = f"{message.text}\n{body.decode('utf-8', 'replace')}"[:_MESSAGE_MAX]
            self._messages[-1] = msgspec.structs.replace(message, text=text)


def _text_line(body: bytes, number: int) -> AccessLogEntry | EnvoyMessage | None:
    text = body.decode("utf-8", "replace")
    match = _TEXT.match(text) or (_QUOTES.match(text) if text.startswith("[") else None)
    if match:
        return _entry(match.groupdict(), text, number)
    return _istio_message(text, number) or _stock_message(text, number)


def _istio_message(text: str, number: int) -> EnvoyMessage | None:
    match = _ISTIO_MESSAGE.match(text)
    if not match:
        return None
    time, level, rest = match.groups()
    parts = rest.split("\t")
    if len(parts) > 1 and parts[-1].startswith("thread="):
        parts.pop()
    scope = parts.pop(0) if len(parts) > 1 else ""
    return EnvoyMessage(
        _time(time), _level(level), _logger(scope), "\t".join(parts)[:_MESSAGE_MAX], text[:LINE_LIMIT], number
    )


def _stock_message(text: str, number: int) -> EnvoyMessage | None:
    match = _STOCK_MESSAGE.match(text)
    if not match:
        return None
    time, level, logger, message = match.groups()
    return EnvoyMessage(_time(time), _level(level), logger, message[:_MESSAGE_MAX], text[:LINE_LIMIT], number)


def _logger(scope: str) -> str:
    """`envoy config external/envoy/source/…:123` is `config`; an agent's scope stays as it is."""
    words = scope.split(" ")
    return words[1] if words[0] == "envoy" and len(words) > 1 else scope


def _level(level: str) -> str:
    return "warning" if level == "warn" else level


def _json_line(body: bytes, number: int) -> AccessLogEntry | EnvoyMessage | None:
    try:
        decoded = _JSON.decode(body)
    except msgspec.ValidationError:
        return _odd_json_line(body, number)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if decoded.start_time is None and decoded.msg is not None:
        return _json_message(decoded.time, decoded.level, decoded.scope, decoded.msg, body, number)
    if decoded.start_time is None and decoded.response_code is None:
        return None
    return AccessLogEntry(
        start_time=_time(decoded.start_time or ""),
        method=_text(decoded.method),
        path=_text(decoded.path),
        protocol=_text(decoded.protocol),
        response_code=decoded.response_code or 0,
        response_flags=_flags(decoded.response_flags or "-"),
        response_code_details=_text(decoded.response_code_details),
        connection_termination_details=_text(decoded.connection_termination_details),
        upstream_transport_failure_reason=_text(decoded.upstream_transport_failure_reason),
        bytes_received=decoded.bytes_received or 0,
        bytes_sent=decoded.bytes_sent or 0,
        duration_ms=decoded.duration_ms,
        upstream_service_time=_text(decoded.upstream_service_time),
        x_forwarded_for=_text(decoded.x_forwarded_for),
        user_agent=_text(decoded.user_agent),
        request_id=_text(decoded.request_id),
        authority=_text(decoded.authority),
        upstream_host=_text(decoded.upstream_host),
        upstream_cluster=_text(decoded.upstream_cluster),
        upstream_local_address=_text(decoded.upstream_local_address),
        downstream_local_address=_text(decoded.downstream_local_address),
        downstream_remote_address=_text(decoded.downstream_remote_address),
        requested_server_name=_text(decoded.requested_server_name),
        route_name=_text(decoded.route_name),
        line=body[: 4 * LINE_LIMIT].decode("utf-8", "replace")[:LINE_LIMIT],
        number=number,
    )


def _odd_json_line(body: bytes, number: int) -> AccessLogEntry | EnvoyMessage | None:
    """A JSON line whose fields have other types than Istio's (numbers as text, say)."""
    try:
        decoded = _ANY_JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    values = {key: "-" if value is None else str(value) for key, value in decoded.items()}
    line = body.decode("utf-8", "replace")
    if "start_time" not in values and "msg" in values:
        return _json_message(
            values.get("time"), values.get("level"), values.get("scope"), values["msg"], body, number
        )
    if "start_time" not in values and "response_code" not in values:
        return None
    return _entry(values, line, number)


def _json_message(
    time: str | None, level: str | None, scope: str | None, text: str, body: bytes, number: int
) -> EnvoyMessage:
    line = body.decode("utf-8", "replace")[:LINE_LIMIT]
    logger = _logger(scope or "")
    return EnvoyMessage(_time(time or ""), _level(level or ""), logger, text[:_MESSAGE_MAX], line, number)


_NUMBERS = frozenset({"response_code", "bytes_received", "bytes_sent"})


def _entry(values: dict[str, str], line: str, number: int) -> AccessLogEntry:
    """An entry from each field's text, `-` where there is nothing."""
    fields: dict[str, Any] = {}
    for name in _TEXT_FIELDS:
        value = values.get(name, "-")
        if name in _NUMBERS:
            fields[name] = _number(value) or 0
        elif name == "start_time":
            fields[name] = _time(value)
        elif name == "response_flags":
            fields[name] = _flags(value)
        else:
            fields[name] = _text(value)
    return AccessLogEntry(
        **fields, duration_ms=_number(values.get("duration", "-")), line=line[:LINE_LIMIT], number=number
    )


def _text(value: str | None) -> str:
    return "" if value is None or value == "-" else value


def _number(value: str) -> int | None:
    return int(value) if len(value) < 19 and value.isascii() and value.isdigit() else None


_NO_FLAGS: frozenset[str] = frozenset()


def _flags(value: str) -> frozenset[str]:
    """Flags are a set: `URX,UF` and `UF,URX` are the same."""
    return _NO_FLAGS if value in ("-", "") else frozenset(filter(None, value.split(",")))


def _time(value: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
