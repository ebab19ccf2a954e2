"""The difference between the configuration that istiod means a proxy to have and the one that Envoy holds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from meshscope.envoy.config_dump import ConfigDump, DecodeProblem, MessageKind, decode_json

What = Literal["missing", "unexpected", "different"]

_KINDS: tuple[MessageKind, ...] = ("cluster", "listener", "route")
_CAMEL = re.compile(r"(?<=[a-z0-9])[A-Z]")
_CAMEL_NAME = re.compile(r"[a-z][A-Za-z0-9]*")


class Difference(Struct, frozen=True):
    """A resource that Envoy lacks, that istiod doesn't mean it to have, or that differs: `text` is a unified diff."""

    kind: MessageKind
    name: str
    what: What
    text: str = ""


class Drift(Struct, frozen=True):
    """All differences, by kind and name, what was compared, and what couldn't be read on either side."""

    differences: tuple[Difference, ...]
    compared: dict[str, int]
    problems: tuple[DecodeProblem, ...] = ()


def read_meant(raw: bytes) -> ConfigDump:
    """istiod's own config dump, whose names are protobuf's JSON ones. Raises ConfigDumpError or msgspec.DecodeError."""
    return ConfigDump(msgspec.json.encode(_renamed(decode_json(raw, Any), _proto_name)))


def drift(meant: ConfigDump, held: ConfigDump) -> Drift:
    """Compares what came over xDS; static resources are Envoy's own, and istiod knows nothing of them."""
    differences: list[Difference] = []
    compared: dict[str, int] = {}
    for kind in _KINDS:
        wanted, found = _by_name(meant, kind), _by_name(held, kind)
        compared[kind] = len(wanted)
        differences += _differences(kind, wanted, found)
    return Drift(tuple(differences), compared, (*meant.problems, *held.problems))


def _by_name(config: ConfigDump, kind: MessageKind) -> dict[str, Any]:
    found = {}
    for message in config.messages(kind):
        if message.state != "STATIC":
            resource = _renamed(decode_json(message.raw, dict[str, Any]), _json_name)
            found[str(resource.get("name", message.name))] = resource
    return found


def _differences(kind: MessageKind, wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[Difference]:
    for name in sorted({*wanted, *found}):
        if name not in found:
            yield Difference(kind, name, "missing")
        elif name not in wanted:
            yield Difference(kind, name, "unexpected")
        elif wanted[name] != found[name]:
            yield Difference(kind, name, "different", _unified(wanted[name], found[name]))


def _unified(wanted: Any, found: Any) -> str:
    lines = difflib.unified_diff(_lines(wanted), _lines(found), "istiod", "Envoy", n=2, lineterm="")
    return "\n".join(lines)


def _lines(value: Any) -> list[str]:
    encoded = msgspec.json.encode(value, order="deterministic")
    return msgspec.json.format(encoded, indent=2).decode().split("\n")


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {rename(name): _renamed(item, rename) for name, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, rename) for item in value]
    return value


def _proto_name(name: str) -> str:
    """`connectTimeout` as Envoy prints it, `connect_timeout`."""
    if not _CAMEL_NAME.fullmatch(name):
        return name
    return _CAMEL.sub(lambda capital: f"_{capital[0].lower()}", name)


def _json_name(name: str) -> str:
    """`consecutive_5xx` as protobuf's JSON has it, `consecutive5xx`: the form that both sides can be brought to."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)
