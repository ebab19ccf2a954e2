"""The demo mesh: bookinfo on real Envoys on loopback, with faults to look for.

`demo_mesh` is a running one, `bundle_for` what can be seen of it, `run` the command's life of it and
`catalogue` the list of faults. Starting takes Linux and the extra `meshscope[demo]`.
"""

from __future__ import annotations

from meshscope.demo.envoy_binary import DemoUnavailableError
from meshscope.demo.faults import Entry, UnknownFaultError, catalogue
from meshscope.demo.mesh import DemoFailedError, DemoMesh
from meshscope.demo.show import bundle_for, demo_mesh, run

__all__ = [
    "DemoFailedError",
    "DemoMesh",
    "DemoUnavailableError",
    "Entry",
    "UnknownFaultError",
    "bundle_for",
    "catalogue",
    "demo_mesh",
    "run",
]
