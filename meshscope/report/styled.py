"""Lines of styled text, painted for a terminal or left plain."""

from __future__ import annotations

import io
from collections.abc import Iterable

Line = list[tuple[str, str]]
"""Pieces of one line: text and the name of a style ("" for none). Text is data and never read as markup."""


def paint(lines: Iterable[Line], color: bool) -> str:
    """All lines as one text, with the escape sequences of colours if there is to be colour."""
    if color:
        return _colored(lines)
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def _colored(lines: Iterable[Line]) -> str:
    # Rich is imported here because plain output shouldn't wait for it.
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="standard", markup=False, highlight=False, emoji=False
    )
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True, crop=False, overflow="ignore")
    return out.getvalue()
