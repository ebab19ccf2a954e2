"""Decodes Envoy's /clusters?format=json: every host's health as this proxy sees it, and its counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from meshscope.envoy.config_dump import (
    Address,
    CircuitBreakers,
    DecodeProblem,
    Percent,
    Thresholds,
    decode_json,
)


class HostStatus(Struct, frozen=True):
    """One endpoint of a cluster; `stats` holds rq_total, rq_success, rq_error, cx_total, cx_active, …"""

    cluster: str
    address: str
    """`ip:port`, `[ip6]:port` or `unix://path`."""
    hostname: str = ""
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False
    failed_degraded_check: bool = False
    pending_dynamic_removal: bool = False
    pending_active_hc: bool = False
    excluded_via_immediate_hc_fail: bool = False
    active_hc_timeout: bool = False
    eds_health_status: str = "UNKNOWN"
    weight: int = 1
    priority: int = 0
    success_rate: float | None = None
    stats: dict[str, int] = {}

    @property
    def healthy(self) -> bool:
        """Whether the load balancer counts it as healthy (what it does in panic is another matter)."""
        failed = self.failed_active_health_check or self.failed_outlier_check
        return not failed and self.eds_health_status not in ("UNHEALTHY", "DRAINING", "TIMEOUT")


class ClusterStatus(Struct, frozen=True):
    """One cluster with its hosts; an ejection threshold is None where outlier detection has computed none."""

    name: str
    added_via_api: bool = False
    hosts: tuple[HostStatus, ...] = ()
    eds_service_name: str = ""
    success_rate_ejection_threshold: float | None = None
    local_origin_success_rate_ejection_threshold: float | None = None
    circuit_breakers: CircuitBreakers = CircuitBreakers()

    def thresholds(self, priority: str = "DEFAULT") -> Thresholds | None:
        """The limits for a priority, None where the answer has none."""
        return next((t for t in self.circuit_breakers.thresholds if t.priority == priority), None)

    def host(self, address: str) -> HostStatus | None:
        return next((host for host in self.hosts if host.address == address), None)


class ClusterStatuses(Struct, frozen=True):
    """All clusters by name, in Envoy's order; what couldn't be read is in `problems`."""

    by_name: dict[str, ClusterStatus]
    problems: tuple[DecodeProblem, ...] = ()

    def get(self, name: str) -> ClusterStatus | None:
        return self.by_name.get(name)

    def __iter__(self) -> Iterator[ClusterStatus]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)


class _Stat(Struct, frozen=True):
    name: str = ""
    value: int = 0


class _HostHealth(Struct, frozen=True):
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False
    failed_degraded_check: bool = False
    pending_dynamic_removal: bool = False
    pending_active_hc: bool = False
    excluded_via_immediate_hc_fail: bool = False
    active_hc_timeout: bool = False
    eds_health_status: str = "UNKNOWN"


class _Host(Struct, frozen=True):
    address: Address = Address()
    stats: tuple[_Stat, ...] = ()
    health_status: _HostHealth = _HostHealth()
    success_rate: Percent | None = None
    weight: int = 1
    hostname: str = ""
    priority: int = 0


class _Cluster(Struct, frozen=True):
    name: str = ""
    added_via_api: bool = False
    success_rate_ejection_threshold: Percent | None = None
    local_origin_success_rate_ejection_threshold: Percent | None = None
    host_statuses: tuple[_Host, ...] = ()
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    eds_service_name: str = ""


class _Answer(Struct, frozen=True):
    cluster_statuses: tuple[Raw, ...] | None = None


def read_clusters(raw: bytes) -> ClusterStatuses | DecodeProblem:
    """Reads the whole answer; a cluster that can't be read costs itself alone."""
    try:
        answer = decode_json(raw, _Answer)
    except msgspec.DecodeError as error:
        return DecodeProblem("clusters", str(error))
    if answer.cluster_statuses is None:
        return DecodeProblem("clusters", "no `cluster_statuses`: not an answer of /clusters?format=json")
    by_name: dict[str, ClusterStatus] = {}
    problems: list[DecodeProblem] = []
    for position, part in enumerate(answer.cluster_statuses):
        try:
            cluster = _status(decode_json(part, _Cluster))
        except msgspec.DecodeError as error:
            problems.append(DecodeProblem(f"cluster_statuses[{position}]", str(error)))
        else:
            by_name.setdefault(cluster.name, cluster)
    return ClusterStatuses(by_name, tuple(problems))


def _status(cluster: _Cluster) -> ClusterStatus:
    return ClusterStatus(
        name=cluster.name,
        added_via_api=cluster.added_via_api,
        hosts=tuple(_host(cluster.name, host) for host in cluster.host_statuses),
        eds_service_name=cluster.eds_service_name,
        success_rate_ejection_threshold=_percent(cluster.success_rate_ejection_threshold),
        local_origin_success_rate_ejection_threshold=_percent(
            cluster.local_origin_success_rate_ejection_threshold
        ),
        circuit_breakers=cluster.circuit_breakers,
    )


def _host(cluster: str, host: _Host) -> HostStatus:
    health: dict[str, Any] = msgspec.structs.asdict(host.health_status)
    return HostStatus(
        cluster=cluster,
        address=str(host.address),
        hostname=host.hostname,
        weight=host.weight,
        priority=host.priority,
        success_rate=_percent(host.success_rate),
        stats={stat.name: stat.value for stat in host.stats},
        **health,
    )


def _percent(percent: Percent | None) -> float | None:
    """Envoy answers -1 for a rate that it has too few requests to compute."""
    return percent.value if percent is not None and percent.value >= 0 else None
