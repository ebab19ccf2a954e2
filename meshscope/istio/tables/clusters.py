"""The table of a proxy's clusters."""

from __future__ import annotations

from msgspec import Struct

from meshscope.envoy.config_dump import ConfigDump, Message, Metadata
from meshscope.istio.names import cluster_name, metadata_object
from meshscope.istio.tables.table import Row, Table, by_service, decoded, distinct, service_behind, state_cell

_COLUMNS = ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE")
_FURTHER = ("STATE", "KUBERNETES OBJECTS")


class ClusterFilter(Struct, frozen=True):
    """Which clusters: part of the host (or of a name that has none), port, part of the subset, direction."""

    fqdn: str = ""
    port: int | None = None
    subset: str = ""
    direction: str = ""

    def takes(self, name: str) -> bool:
        parts = cluster_name(name)
        if parts is None:
            return self.fqdn in name and self.port is None and not self.subset and not self.direction
        return (
            (not self.fqdn or self.fqdn in parts.fqdn)
            and (self.port is None or self.port == parts.port)
            and self.subset in parts.subset
            and self.direction in ("", parts.direction)
        )


class _ClusterType(Struct, frozen=True):
    name: str = ""


class _Cluster(Struct, frozen=True):
    name: str = ""
    type: str = "STATIC"
    cluster_type: _ClusterType | None = None
    metadata: Metadata = Metadata()


def cluster_table(config: ConfigDump, only: ClusterFilter) -> Table:
    """Active, warming and static clusters, by host, subset and port."""
    found, problems = decoded(config, "cluster", _Cluster)
    taken = [(message, cluster) for message, cluster in found if only.takes(cluster.name)]
    taken.sort(key=lambda pair: by_service(pair[1].name))
    return Table(
        "cluster",
        _COLUMNS,
        _FURTHER,
        tuple(_row(message, cluster) for message, cluster in taken),
        tuple(message.raw for message, _ in taken),
        problems,
    )


def _row(message: Message, cluster: _Cluster) -> Row:
    parts = cluster_name(cluster.name)
    rule = metadata_object(cluster.metadata.istio())
    if parts is None:
        where: tuple[str, ...] = (cluster.name, "-", "-", "-")
    else:
        where = (parts.fqdn, str(parts.port), parts.subset or "-", parts.direction)
    kind = cluster.cluster_type.name if cluster.cluster_type else cluster.type
    behind = distinct((service_behind(parts) if parts else "", str(rule or "")))
    managed = f"{rule.name}.{rule.namespace}" if rule else ""
    return Row(cluster.name, (*where, kind, managed, state_cell(message), behind))
