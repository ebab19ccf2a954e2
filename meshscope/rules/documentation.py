"""Reads the user documentation out of a rule's docstring."""

from __future__ import annotations

import inspect

import msgspec

HEADINGS = ("Symptom", "Why it fails", "How meshscope knows", "Fix", "References")


class Documentation(msgspec.Struct, frozen=True):
    """A rule's documentation in Markdown: one sentence, then the sections in the order of HEADINGS."""

    summary: str
    sections: tuple[tuple[str, str], ...]

    def section(self, heading: str) -> str:
        """The text under a heading, "" where the docstring lacks it."""
        return dict(self.sections).get(heading, "")

    @property
    def missing(self) -> tuple[str, ...]:
        """Headings that are absent or empty."""
        return tuple(heading for heading in HEADINGS if not self.section(heading))


def parse(docstring: str) -> Documentation:
    """A docstring whose sections begin with a line that is one of HEADINGS and nothing else."""
    lines = inspect.cleandoc(docstring).split("\n")
    texts: dict[str, list[str]] = {"": []}
    heading = ""
    for line in lines:
        if line in HEADINGS:
            heading = line
            texts[heading] = []
        else:
            texts[heading].append(line)
    summary = " ".join(" ".join(texts.pop("")).split())
    return Documentation(summary, tuple((name, _text(text)) for name, text in texts.items()))


def _text(lines: list[str]) -> str:
    """A section's lines without the indentation they share."""
    return inspect.cleandoc("\n" + "\n".join(lines)).strip()
