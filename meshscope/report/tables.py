"""Writes the tables that istioctl's users know for a terminal, and for scripts that read their columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshscope.istio.tables.table import Table
from meshscope.report.safe import one_line, redact
from meshscope.report.styled import Line, paint

_GAP = 3
_STYLES = {
    "ERROR": "bold red",
    "STALE": "yellow",
    "FAILED": "bold red",
    "UNHEALTHY": "bold red",
    "DRAINING": "yellow",
    "WARMING": "yellow",
    "UNINITIALIZED": "yellow",
    "false": "bold red",
    "404": "yellow",
}


def render(
    tables: Sequence[Table], *, head: Sequence[str] = (), wide: bool = False, color: bool = False
) -> str:
    """Lines of a head, then tables, with an empty line between; `wide` shows the further columns, too."""
    parts = [[[(_safe(line), "")] for line in head]] if head else []
    parts += [list(_lines(table, wide=wide)) for table in tables]
    return paint(_with_gaps(parts), color)


def _with_gaps(parts: Sequence[Sequence[Line]]) -> Iterator[Line]:
    for position, part in enumerate(parts):
        if position:
            yield []
        yield from part


def _lines(table: Table, *, wide: bool) -> Iterator[Line]:
    columns = (*table.columns, *table.further) if wide else table.columns
    rows = [tuple(map(_safe, row.cells[: len(columns)])) for row in table.rows]
    widths = [max(map(len, column)) + _GAP for column in zip(columns, *rows, strict=True)]
    yield [(_padded(columns, widths), "bold")]
    for row in rows:
        yield [
            (f"{cell:<{width}}", _STYLES.get(cell.partition(" ")[0].rstrip(","), ""))
            for cell, width in zip(row, widths, strict=True)
        ]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))


def _safe(text: str) -> str:
    return one_line(redact(text))
