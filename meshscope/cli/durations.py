"""Durations as people write them: 90s, 5m, 1h30m."""

from __future__ import annotations

import re

from meshscope.cli.exits import CommandError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(option: str, text: str) -> float:
    """The duration in seconds; a CommandError that names the option for anything else."""
    if not _WHOLE.fullmatch(text):
        raise CommandError(f"{option} takes a duration like 90s, 5m or 1h30m; got {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
