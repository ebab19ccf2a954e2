"""A table with the messages behind its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from meshscope.envoy.config_dump import ConfigDump, DecodeProblem, Message, MessageKind, decode_json
from meshscope.istio.names import ClusterName, cluster_name, service_host

T = TypeVar("T")

SortKey = tuple[str, str, int, str]


class Row(Struct, frozen=True):
    """One line: the cells of the established columns, then those of the further ones. `name` is the resource's."""

    name: str
    cells: tuple[str, ...]


class Table(Struct, frozen=True):
    """Rows, and Envoy's own messages in the same order (one message may stand behind several rows).

    `columns` are the established ones, which scripts rely on; `further` are meshscope's own and come after them.
    """

    kind: str
    columns: tuple[str, ...]
    further: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    messages: tuple[Raw, ...] = ()
    problems: tuple[DecodeProblem, ...] = ()

    def typed(self) -> Table:
        """The same among tables of other kinds: names as KIND/NAME, in a column of their own if there is none."""
        if self.columns[0] in _NAME_COLUMNS:
            rows = (Row(row.name, (f"{self.kind}/{row.cells[0]}", *row.cells[1:])) for row in self.rows)
            return msgspec.structs.replace(self, rows=tuple(rows))
        rows = (Row(row.name, (f"{self.kind}/{row.name}", *self._typed_cells(row))) for row in self.rows)
        return msgspec.structs.replace(self, columns=("NAME", *self.columns), rows=tuple(rows))

    def _typed_cells(self, row: Row) -> Iterator[str]:
        return (f"{self.kind}/{cell}" if cell and cell == row.name else cell for cell in row.cells)


_NAME_COLUMNS = ("NAME", "RESOURCE NAME", "ECDS NAME")


def decoded(
    config: ConfigDump, kind: MessageKind, as_type: type[T]
) -> tuple[list[tuple[Message, T]], tuple[DecodeProblem, ...]]:
    """A dump's resources of one kind as `as_type`, in the dump's order; one that can't be read costs itself alone."""
    found: list[tuple[Message, T]] = []
    problems: list[DecodeProblem] = []
    for message in config.messages(kind):
        try:
            found.append((message, decode_json(message.raw, as_type)))
        except msgspec.DecodeError as error:
            where = f"{kind} {message.name}".strip()
            problems.append(DecodeProblem(where, str(error)))
    return found, tuple(problems)


def by_service(name: str) -> SortKey:
    """istioctl's order of clusters and endpoints: host, subset, port, direction; other names are their own host."""
    parts = cluster_name(name)
    return (parts.fqdn, parts.subset, parts.port, parts.direction) if parts else (name, "", 0, "")


def service_behind(name: ClusterName | str) -> str:
    """The Kubernetes Service that a cluster (or a host) stands for, as KIND/NAMESPACE/NAME; "" for others."""
    host = service_host(name if isinstance(name, str) else name.fqdn)
    return f"Service/{host.namespace}/{host.service}" if host else ""


def state_cell(message: Message) -> str:
    """How far a resource came, and whether the proxy refused a newer version of it."""
    return f"{message.state}, update REJECTED" if message.rejected else message.state


def distinct(texts: Iterable[str]) -> str:
    """Texts that aren't empty, each once, in one cell."""
    return ", ".join(dict.fromkeys(text for text in texts if text))
