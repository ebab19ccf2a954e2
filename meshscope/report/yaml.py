"""Writes documents as YAML."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from meshscope.report.safe import HOSTILE, well_formed


class _Dumper(yaml.SafeDumper):
    """Writes each value where it stands (no aliases), and commands and patches as blocks of lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def render(document: msgspec.Struct) -> str:
    """A document as YAML; where any of it could act on a terminal, all that isn't ASCII is escaped."""
    return dump(msgspec.to_builtins(well_formed(document)))


def dump(builtin: Any) -> str:
    """The same of plain values, which hold no lone surrogates."""
    return yaml.dump(
        builtin, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=not _any_hostile(builtin)
    )


def _any_hostile(value: Any) -> bool:
    if isinstance(value, str):
        return bool(HOSTILE.search(value.replace("\n", "")))
    if isinstance(value, dict):
        return any(_any_hostile(key) or _any_hostile(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return any(map(_any_hostile, value))
    return False
