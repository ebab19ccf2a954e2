"""What Envoy's outlier detection and panic threshold do with a cluster's hosts.

Source: Envoy's documentation of outlier detection and of the panic threshold, and measured on 1.40.
"""

from __future__ import annotations

from meshscope.envoy.clusters import HostStatus
from meshscope.envoy.config_dump import Cluster, OutlierDetection

DEFAULT_PANIC_PERCENT = 50.0


def ejected(hosts: tuple[HostStatus, ...]) -> tuple[HostStatus, ...]:
    """The hosts that outlier detection has taken out at the moment."""
    return tuple(host for host in hosts if host.failed_outlier_check)


def may_eject_another(detection: OutlierDetection, total: int, already: int) -> bool:
    """Whether one more of `total` hosts may be ejected: the share with it must stay within max_ejection_percent."""
    if total == 0:
        return False
    if detection.always_eject_one_host and already == 0:
        return True
    return (already + 1) * 100 / total <= detection.max_ejection_percent


def panic_percent(cluster: Cluster) -> float:
    """Below this share of healthy hosts Envoy sends to all of them, healthy or not; 0 switches panic off.

    Istio writes an empty message, which is 0, unless `minHealthPercent` is set; absent, Envoy's default counts.
    """
    threshold = cluster.common_lb_config.healthy_panic_threshold
    return DEFAULT_PANIC_PERCENT if threshold is None else threshold.value


def panics(cluster: Cluster, hosts: tuple[HostStatus, ...]) -> bool:
    """Whether the load balancer is in panic with these hosts."""
    if not hosts:
        return False
    healthy = sum(1 for host in hosts if host.healthy)
    return healthy * 100 / len(hosts) < panic_percent(cluster)
