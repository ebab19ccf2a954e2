"""Decides which mTLS mode a pod's port demands of its callers: the effective PeerAuthentication."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from meshscope.istio.kubernetes import Objects, match_labels, selects
from meshscope.istio.names import SECURITY
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef

MtlsMode = Literal["STRICT", "PERMISSIVE", "DISABLE"]
Level = Literal["port", "workload", "namespace", "mesh", "default"]


class EffectiveMtls(Struct, frozen=True):
    """The mode in force, the policy that decided it (None: Istio's default) and at which level."""

    mode: MtlsMode
    decided_by: ObjectRef | None
    level: Level


class Policies(Struct, frozen=True):
    """The policies in force for one pod; of several at a level the oldest is the one."""

    mesh: KubernetesObject | None = None
    namespace: KubernetesObject | None = None
    workload: KubernetesObject | None = None


def effective(objects: Objects, pod: KubernetesObject, port: int) -> EffectiveMtls:
    """The mode for one container port: port over workload over namespace over mesh, where UNSET inherits."""
    chosen = in_force(objects, pod)
    found = EffectiveMtls("PERMISSIVE", None, "default")
    levels: tuple[tuple[Level, KubernetesObject | None], ...] = (
        ("mesh", chosen.mesh),
        ("namespace", chosen.namespace),
        ("workload", chosen.workload),
    )
    for level, policy in levels:
        mode = _mode(policy.spec.get("mtls")) if policy else None
        if policy is not None and mode is not None:
            found = EffectiveMtls(mode, policy.ref, level)
    if chosen.workload is not None:
        mode = _port_mode(chosen.workload, port)
        if mode is not None:
            found = EffectiveMtls(mode, chosen.workload.ref, "port")
    return found


def in_force(objects: Objects, pod: KubernetesObject) -> Policies:
    """The policies that bear on a pod.

    A policy with a selector counts in its own namespace only, and in the root namespace not at all: there,
    istiod takes policies without selector alone.
    """
    root = objects.root_namespace
    namespace = pod.metadata.namespace
    everywhere = [p for p in policies(objects, root) if not match_labels(p.spec)]
    here = policies(objects, namespace) if namespace != root else []
    return Policies(
        mesh=_oldest(everywhere),
        namespace=_oldest(p for p in here if not match_labels(p.spec)),
        workload=_oldest(
            p for p in here if (labels := match_labels(p.spec)) and selects(labels, pod.metadata.labels)
        ),
    )


def policies(objects: Objects, namespace: str | None = None) -> list[KubernetesObject]:
    return list(objects.of("PeerAuthentication", SECURITY, namespace))


def _oldest(found: Iterable[KubernetesObject]) -> KubernetesObject | None:
    return min(
        found,
        key=lambda p: (p.metadata.creationTimestamp, p.metadata.name, p.metadata.namespace),
        default=None,
    )


_MODES: dict[str, MtlsMode] = {"STRICT": "STRICT", "PERMISSIVE": "PERMISSIVE", "DISABLE": "DISABLE"}


def _mode(mtls: Any) -> MtlsMode | None:
    """The mode of an `mtls` block; None where it is UNSET, absent or unknown, which inherits."""
    mode = mtls.get("mode") if isinstance(mtls, dict) else None
    return _MODES.get(mode) if isinstance(mode, str) else None


def _port_mode(policy: KubernetesObject, port: int) -> MtlsMode | None:
    ports = policy.spec.get("portLevelMtls")
    if not isinstance(ports, dict):
        return None
    # A key is a number in YAML and text in JSON.
    return next((_mode(mtls) for key, mtls in ports.items() if str(key) == str(port)), None)
