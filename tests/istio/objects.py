"""Short ways to write Kubernetes objects in tests, and the recorded ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import yaml

from meshscope.istio.kubernetes import Objects
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta
from tests.recordings import files


def an(kind: str, name: str, namespace: str = "ns", version: str = "v1", **body: Any) -> KubernetesObject:
    """An object; `meta` in the body adds to its metadata."""
    metadata = {"name": name, "namespace": namespace, **body.pop("meta", {})}
    raw = {"apiVersion": version, "kind": kind, "metadata": metadata, **body}
    return KubernetesObject(version, kind, msgspec.convert(metadata, ObjectMeta), raw)


def a_pod(
    name: str, namespace: str = "ns", labels: dict[str, str] | None = None, **body: Any
) -> KubernetesObject:
    meta = {"labels": labels or {}, **body.pop("meta", {})}
    return an("Pod", name, namespace, meta=meta, **body)


def owned_by(kind: str, name: str, controller: bool = True) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": controller}]}


@cache
def recorded(recording: str) -> Objects:
    """All objects of a recording."""
    found: list[KubernetesObject] = []
    for path, raw in files(recording).items():
        if not path.startswith("kubernetes/"):
            continue
        for document in yaml.load_all(raw, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            for body in document.get("items") or [document]:
                meta = msgspec.convert(body["metadata"], ObjectMeta, strict=False)
                found.append(KubernetesObject(body["apiVersion"], body["kind"], meta, body))
    return Objects(found)
