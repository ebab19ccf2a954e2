"""Writes Envoy's own messages as JSON and YAML, as they are but for secrets and what could act on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from meshscope.report import json
from meshscope.report.safe import redact, well_formed


def as_json(messages: Sequence[Raw]) -> str:
    """A list of messages, indented."""
    return one_as_json(_list(messages))


def as_yaml(messages: Sequence[Raw]) -> str:
    """The same as YAML."""
    return one_as_yaml(_list(messages))


def one_as_json(message: bytes) -> str:
    """One message, indented. `message` is well-formed JSON."""
    # Raw parts of an answer were never looked into: they may hold bytes that are no UTF-8.
    text = msgspec.json.format(message.decode("utf-8", "replace"), indent=2)
    if redact(text) != text:
        text = msgspec.json.format(msgspec.json.encode(_harmless(message)), indent=2).decode()
    return json.escaped(text) + "\n"


def one_as_yaml(message: bytes) -> str:
    """The same as YAML."""
    from meshscope.report import yaml

    return yaml.dump(_harmless(message))


def _harmless(message: bytes) -> object:
    return well_formed(msgspec.json.decode(message.decode("utf-8", "replace")))


def _list(messages: Sequence[Raw]) -> bytes:
    return b"[" + b",".join(map(bytes, messages)) + b"]"
