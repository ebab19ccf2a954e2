"""The state file: what another process needs to read a running demo mesh.

`${XDG_RUNTIME_DIR or the temporary directory}/meshscope/demo-PID.json`, mode 0600, PID that of the mesh's
supervisor: the mesh runs as long as that process does.

    {"schema": 1, "pid": PID, "cluster": UID, "directory": PATH, "started": RFC 3339,
     "proxies": [{"namespace", "pod", "workload", "admin": "http://127.B.1.N:15000", "log": PATH}],
     "kubernetes": PATH of a directory of JSON lists of objects, one file a namespace,
     "istiod": PATH of a directory laid out as `istiod/` in a bundle: POD/syncz.json}

Everything it points to is kept up to date while the mesh runs and goes away with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meshscope.demo.spec import MeshSpec

if TYPE_CHECKING:
    from meshscope.demo.mesh import Proxy


def directory() -> Path:
    """Where the state files of this user's demo meshes are."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / "meshscope"


def write(pid: int, mesh_directory: Path, spec: MeshSpec, proxies: Sequence[Proxy]) -> Path:
    """Write the state file of the mesh whose supervisor is `pid`."""
    content = {
        "schema": 1,
        "pid": pid,
        "cluster": spec.cluster_uid,
        "directory": str(mesh_directory),
        "started": spec.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "proxies": [
            {
                "namespace": proxy.workload.namespace,
                "pod": proxy.pod.name,
                "workload": proxy.workload.name,
                "admin": proxy.admin,
                "log": str(proxy.log),
            }
            for proxy in proxies
        ],
        "kubernetes": str(mesh_directory / "kubernetes"),
        "istiod": str(mesh_directory / "istiod"),
    }
    where = directory()
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = where / f"demo-{pid}.json"
    partial = where / f".demo-{pid}.json"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=1)
    partial.replace(path)
    return path


def remove(pid: int) -> None:
    """Remove the state file of a mesh that ended, where its supervisor couldn't."""
    (directory() / f"demo-{pid}.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory().rmdir()  # Unless another mesh's state file lives there.
