"""Steady traffic: bounded, counted, with bursts where a fault needs concurrency."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from meshscope.demo.stage.network import Json, Network


@dataclass
class _Tally:
    sent: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


class Traffic:
    """One flow: bounded, steady, counted."""

    def __init__(self, network: Network, flow: Json) -> None:
        self.flow = flow
        self.tally = _Tally()
        self._network = network
        self._running: set[asyncio.Task[None]] = set()
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        self._ticker.cancel()
        for task in self._running:
            task.cancel()

    async def _tick(self) -> None:
        interval = 1 / self.flow["rate"]
        due = time.monotonic()
        while True:
            for _ in range(self.flow["burst"]):
                if len(self._running) < self.flow["concurrency"]:
                    task = asyncio.create_task(self._once())
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
            due = max(due + interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _once(self) -> None:
        self.tally.sent += 1
        answer = await self._network.call(self.flow["via"], self.flow["url"], self.flow["headers"], self.flow)
        if "error" in answer:
            self.tally.errors[answer["error"]] += 1
        else:
            self.tally.answers[str(answer["status"])] += 1
