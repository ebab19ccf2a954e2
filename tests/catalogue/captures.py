"""Captures of the demo mesh with a fault, made once a test run and shared by its workers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from meshscope.demo import demo_mesh
from meshscope.demo.capture import capture
from meshscope.demo.spec import Flow, MeshSpec, Port, Workload

SECONDS = 4.0
"""How long the mesh is watched: enough for two samples and some dozens of requests on each edge."""

UNRELATED = "fault-abort"
"""The cause of the second fault, in a namespace of its own."""


def captured(base: Path, fault: str = "", *, unrelated: bool = False) -> Path:
    """The bundle of a mesh with this fault ("": none), and with an unrelated one beside it.

    `base` is the directory that all workers of the run share.
    """
    name = (fault or "healthy") + ("+unrelated" if unrelated else "")
    bundle = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.exists():
            unfinished = base / f"{name}.{os.getpid()}"
            shutil.rmtree(unfinished, ignore_errors=True)
            change: Callable[[MeshSpec], None] | None = unrelated_fault if unrelated else None
            with demo_mesh([fault] if fault else [], change=change) as mesh:
                capture(mesh, unfinished, SECONDS)
            unfinished.rename(bundle)
    return bundle


def unrelated_fault(spec: MeshSpec) -> None:
    """A shop whose checkout calls payments, where somebody forgot an injected abort for half of the requests."""
    spec.namespaces["shop"] = {"istio-injection": "enabled"}
    payments = Workload("payments-v1", "shop", "payments", service_account="payments")
    payments.ports = [Port(8080)]
    spec.add_workload(payments)
    spec.add_workload(Workload("checkout", "shop", "checkout", service_account="checkout"))
    spec.add(_PAYMENTS)
    spec.flows.append(Flow("payments", "shop/checkout", "http://payments:8080/pay", rate=5))


_PAYMENTS = """
apiVersion: v1
kind: Service
metadata: {name: payments, namespace: shop}
spec:
  selector: {app: payments}
  ports: [{name: http, port: 8080, targetPort: 8080, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payments, namespace: shop}
spec:
  hosts: [payments]
  http:
    - fault: {abort: {percentage: {value: 50}, httpStatus: 500}}
      route: [{destination: {host: payments}}]
"""
