"""Where things are within a bundle: the paths of the format, and back from a path to what it holds."""

from __future__ import annotations

from meshscope.model.names import ProxyId
from meshscope.sources.source import Part

DESCRIPTION = "bundle.json"
FOLDERS = frozenset({"kubernetes", "proxies", "istiod", "linkerd", "prometheus", "tap"})
"""The folders of the format; whatever else lies beside them is left alone."""

ISTIOD_SYNC = "syncz.json"
ISTIOD_METRICS = "metrics.prom"
CONTROL_LOG = "control.log"

_PARTS = {part.value: part for part in Part}


def part_path(proxy: ProxyId, part: Part) -> str:
    return f"proxies/{proxy.namespace}/{proxy.pod}/{part.value}"


def istiod_path(pod: str, path: str) -> str:
    return f"istiod/{pod}/{path}"


def istiod_config_dump(proxy: ProxyId) -> str:
    """What an istiod means `proxy` to have, below `istiod/POD/`."""
    return f"config_dump/{proxy.namespace}.{proxy.pod}.json"


def proxy_of(path: str) -> ProxyId | None:
    """The proxy a path tells of; None for every other path."""
    match path.split("/"):
        case ["proxies", namespace, pod, name] if name in _PARTS:
            return ProxyId(namespace, pod)
    return None


def control_plane_of(path: str) -> str | None:
    match path.split("/"):
        case ["istiod", pod, _, *_]:
            return pod
    return None


def is_kubernetes(path: str) -> bool:
    return path.startswith("kubernetes/") and path.endswith((".yaml", ".yml", ".json"))


def belongs(path: str) -> bool:
    """Whether a path is one of the format's (`._x` is what macOS's tar adds beside every file)."""
    top, slash, rest = path.partition("/")
    if not slash:
        return top == DESCRIPTION
    return top in FOLDERS and bool(rest) and not rest.rpartition("/")[2].startswith("._")
