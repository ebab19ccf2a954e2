"""Drives the comparison: batches of scenarios, each in one real Envoy, until enough decisions are made."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.differential.certificates import Authority
from tests.differential.envoy import EnvoyRefused, RunningEnvoy, free_ports
from tests.differential.generate import CLUSTERS
from tests.differential.scenarios import KINDS, Comparison, Scenario, Setting

_MOST_MISMATCHES = 10
_MOST_SHRUNK = 3
_MOST_TRIALS = 150


_CLUSTERS = [{"name": name, "type": "STATIC", "connect_timeout": "1s"} for name in CLUSTERS]
"""Clusters without endpoints: Envoy answers by itself, and tells which one it chose."""


@dataclass(frozen=True)
class Mismatch:
    """A decision on which Envoy and meshscope differ, with as small a configuration as shows it."""

    seed: int
    scenario: Scenario
    comparison: Comparison

    def __str__(self) -> str:
        return "\n".join(
            (
                f"{self.scenario.kind} (batch seed {self.seed}): Envoy and meshscope differ",
                f"  configuration: {json.dumps(self.scenario.config)}",
                f"  question:      {self.comparison.question}",
                f"  Envoy:         {self.comparison.envoys}",
                f"  meshscope:     {self.comparison.ours}",
            )
        )


@dataclass
class Result:
    """Decisions compared, by kind; `refused` were turned down by Envoy's codec before any decision."""

    decisions: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    mismatches: list[Mismatch] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.decisions.total()


def run(binary: Path, decisions: int, seed: int) -> Result:
    """Compares at least that many decisions; stops early after ten mismatches."""
    result = Result()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="differential-") as name:
        bench = _Bench(binary, Path(name))
        batch = seed
        while result.total < decisions and len(result.mismatches) < _MOST_MISMATCHES:
            _run_batch(bench, batch, decisions - result.total, result)
            batch += 1
        shown = result.mismatches[:_MOST_SHRUNK]
        result.mismatches[:_MOST_SHRUNK] = [bench.smallest(mismatch) for mismatch in shown]
    result.seconds = time.monotonic() - began
    return result


def _run_batch(bench: _Bench, seed: int, wanted: int, result: Result) -> None:
    scenarios = _scenarios(Random(seed), min(1.0, wanted / 2000))
    for scenario, comparison in bench.compare(scenarios):
        if comparison.agrees is None:
            result.refused[scenario.kind] += 1
            continue
        result.decisions[scenario.kind] += 1
        if not comparison.agrees and len(result.mismatches) < _MOST_MISMATCHES:
            result.mismatches.append(Mismatch(seed, scenario, comparison))


def _scenarios(rng: Random, scale: float) -> list[Scenario]:
    planned = [(kind, ports) for kind, number, ports in KINDS for _ in range(max(1, round(number * scale)))]
    free = free_ports(Random(), sum(ports for _, ports in planned))
    scenarios: list[Scenario] = []
    for number, (kind, ports) in enumerate(planned):
        mine = tuple(free.pop() for _ in range(ports))
        scenarios.append(kind.generated(rng, f"scenario{number}", mine))
    return scenarios


class _Bench:
    """Starts an Envoy for scenarios and asks it."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._authority = Authority(directory)

    def compare(self, scenarios: list[Scenario]) -> Iterator[tuple[Scenario, Comparison]]:
        with tempfile.TemporaryDirectory(dir=self._directory) as name:
            directory = Path(name)
            listeners = [scenario.listener(self._authority, directory) for scenario in scenarios]
            with RunningEnvoy(
                self._binary, directory, {"listeners": listeners, "clusters": _CLUSTERS}
            ) as envoy:
                setting = Setting(envoy.config_dump(), self._authority, directory)
                for scenario in scenarios:
                    for comparison in scenario.compare(setting):
                        yield scenario, comparison

    def smallest(self, mismatch: Mismatch) -> Mismatch:
        """The mismatch with everything taken out of its configuration that it doesn't need."""
        trials = 0
        best = mismatch
        progress = True
        while progress and trials < _MOST_TRIALS:
            progress = False
            for config in _smaller(best.scenario.config):
                trials += 1
                found = self._still(best, config)
                if found is not None:
                    best, progress = found, True
                    break
                if trials >= _MOST_TRIALS:
                    break
        return best

    def _still(self, mismatch: Mismatch, config: dict[str, Any]) -> Mismatch | None:
        scenario = mismatch.scenario.narrowed(config, mismatch.comparison.question)
        try:
            for tried, comparison in self.compare([scenario]):
                if comparison.agrees is False:
                    return Mismatch(mismatch.seed, tried, comparison)
        except (EnvoyRefused, KeyError):  # what was left out is needed
            return None
        return None


def _smaller(value: Any) -> Iterator[Any]:
    """Copies of a JSON value with one thing left out, the biggest things first."""
    items: list[tuple[Any, Any]]
    if isinstance(value, dict):
        items = list(value.items())
        for key, _ in items:
            yield {other: each for other, each in items if other != key}
        for key, each in items:
            yield from ({**value, key: smaller} for smaller in _smaller(each))
    elif isinstance(value, list):
        for position in range(len(value)):
            yield value[:position] + value[position + 1 :]
        for position, each in enumerate(value):
            for smaller in _smaller(each):
                yield [*value[:position], smaller, *value[position + 1 :]]
