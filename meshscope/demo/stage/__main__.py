"""Run with the path of a JSON file that says what should be there (`workplace.py` writes it).

The file is read again whenever it changes. Beside it appear `applied` (the generation in force),
`outcomes.json` (what the callers saw) and `acknowledged.json` (which version of what each proxy runs).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from pathlib import Path

from meshscope.demo.stage.application import Application
from meshscope.demo.stage.control_plane import ControlPlane, Discovery
from meshscope.demo.stage.network import Json, Network
from meshscope.demo.stage.traffic import Traffic


class Stage:
    """Brings what runs to what the file says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._network = Network()
        self._applications: dict[tuple[str, int, str], Application] = {}
        self._flows: dict[str, Traffic] = {}
        self._control_plane = ControlPlane()
        self._discovery = Discovery(path.with_name("proxies"))
        self._generation = 0

    async def run(self) -> None:
        # The proxies come soon after this socket.
        await self._discovery.start(str(self._path.with_name("REST")))
        stamp = 0
        for turn in itertools.count():
            with contextlib.suppress(FileNotFoundError):
                found = self._path.stat().st_mtime_ns
                if found != stamp:
                    stamp = found
                    await self._apply(json.loads(self._path.read_bytes()))
            if turn % 2 == 0:
                self._report()
            await asyncio.sleep(0.05)

    async def _apply(self, wanted: Json) -> None:
        self._network.names = wanted["names"]
        self._network.endpoints = wanted["endpoints"]
        ports = {(port["address"], port["port"], port["protocol"]): port for port in wanted["ports"]}
        for key in set(self._applications) - set(ports):
            await self._applications.pop(key).stop()
        for key, port in ports.items():
            await self._applications.setdefault(key, Application(self._network)).apply(port)
        self._discovery.frozen = set(wanted.get("frozen", []))
        self._discovery.wake()
        await self._control_plane.apply(wanted["xds"]["socket"], up=wanted["xds"]["up"])
        flows = {flow["name"]: flow for flow in wanted["flows"]}
        for name in list(self._flows):
            if flows.get(name) != self._flows[name].flow:
                await self._flows.pop(name).stop()
        for name, flow in flows.items():
            if name not in self._flows:
                self._flows[name] = Traffic(self._network, flow)
        self._generation = wanted["generation"]
        _replace(self._path.with_name("applied"), str(self._generation))

    def _report(self) -> None:
        outcomes = {
            name: {
                "sent": traffic.tally.sent,
                "answers": dict(traffic.tally.answers),
                "errors": dict(traffic.tally.errors),
            }
            for name, traffic in self._flows.items()
        }
        _replace(self._path.with_name("outcomes.json"), json.dumps(outcomes))
        acknowledged = json.dumps(self._discovery.acknowledged)
        _replace(self._path.with_name("acknowledged.json"), acknowledged)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    asyncio.run(Stage(Path(sys.argv[1])).run())
