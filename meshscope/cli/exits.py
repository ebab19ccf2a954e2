"""How a run ends."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit codes, the same for every command and output format.

    Where several hold the order is INTERRUPTED, USAGE, UNREACHABLE, FINDINGS, INCOMPLETE.
    """

    OK = 0
    FINDINGS = 1
    USAGE = 2
    UNREACHABLE = 3
    INCOMPLETE = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command can't go on: one line on what happened, to what, and what to do; `details` are further lines."""

    def __init__(self, message: str, exit_code: int = Exit.USAGE, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = details
