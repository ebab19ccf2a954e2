"""The table of the filters that a proxy got over ECDS."""

from __future__ import annotations

from meshscope.envoy.config_dump import ConfigDump, TypedExtension
from meshscope.istio.tables.table import Row, Table, decoded


def extension_table(config: ConfigDump) -> Table:
    """Filters by type and name."""
    found, problems = decoded(config, "extension", TypedExtension)
    listed = sorted(
        ((message, extension.name, extension.type_url) for message, extension in found),
        key=lambda entry: (entry[2], entry[1]),
    )
    return Table(
        "ecds",
        ("ECDS NAME", "TYPE"),
        ("STATE",),
        tuple(Row(name, (name, type_name, message.state)) for message, name, type_name in listed),
        tuple(message.raw for message, _, _ in listed),
        problems,
    )
