"""Kubernetes objects of any kind, typed where every kind is alike and raw where they differ."""

from __future__ import annotations

from typing import Any

import msgspec

from meshscope.model.names import ObjectRef


class OwnerReference(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    apiVersion: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creationTimestamp: str = ""
    deletionTimestamp: str = ""
    ownerReferences: tuple[OwnerReference, ...] = ()


class KubernetesObject(msgspec.Struct, frozen=True):
    """One object; `body` is the whole of it as read (spec, status, data, endpoints, …)."""

    apiVersion: str
    kind: str
    metadata: ObjectMeta
    body: dict[str, Any]

    @property
    def group(self) -> str:
        group, slash, _ = self.apiVersion.partition("/")
        return group if slash else ""

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef(self.kind, self.metadata.name, self.metadata.namespace, self.group)

    @property
    def spec(self) -> dict[str, Any]:
        found = self.body.get("spec")
        return found if isinstance(found, dict) else {}

    @property
    def status(self) -> dict[str, Any]:
        found = self.body.get("status")
        return found if isinstance(found, dict) else {}
