"""The one protocol behind which every source stands."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Protocol

import msgspec

from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ProxyId


class Part(enum.Enum):
    """What can be read of a proxy; the value is the file's name in a bundle."""

    CONFIG_DUMP = "config_dump.json"
    CLUSTERS = "clusters.json"
    CERTS = "certs.json"
    SERVER_INFO = "server_info.json"
    STATS = "stats.txt"
    METRICS = "metrics.prom"
    BEFORE_METRICS = "before.prom"
    BEFORE_CLUSTERS = "before.clusters.json"
    ENV = "env.json"
    LOG = "proxy.log"
    IDENTITY = "identity.pem"


class Capture(msgspec.Struct, frozen=True):
    """When and where the facts were read. `samples` has the time of parts read at another moment, by bundle path."""

    captured_at: datetime
    cluster: str = ""
    meshes: tuple[str, ...] = ()
    samples: dict[str, datetime] = {}


class Read(msgspec.Struct, frozen=True):
    """Kubernetes objects as far as they could be read."""

    objects: tuple[KubernetesObject, ...]
    problems: tuple[Unavailable, ...] = ()


class Source(Protocol):
    """Facts by name. What can't be had is an Unavailable, never an exception; only opening a source may raise."""

    @property
    def capture(self) -> Capture: ...

    def proxies(self) -> tuple[ProxyId, ...]:
        """The proxies that can be asked, sorted."""
        ...

    def read(self, proxy: ProxyId, part: Part) -> bytes | Unavailable:
        """One part of one proxy, as the proxy itself answered."""
        ...

    def kubernetes(self) -> Read | Unavailable:
        """All Kubernetes objects there are; Unavailable where there is none at all."""
        ...

    def control_planes(self) -> tuple[str, ...]:
        """Names of the istiod pods that answered."""
        ...

    def read_control_plane(self, pod: str, path: str) -> bytes | Unavailable:
        """One answer of an istiod, by its path below `istiod/POD/` in a bundle (`syncz.json`, …)."""
        ...

    def close(self) -> None:
        """Gives back what reading took (temporary directories, connections)."""
        ...


class SourceError(Exception):
    """A source can't be opened: what, why, and what to do. Exit code 2 for bad input, 3 for unreachable."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
