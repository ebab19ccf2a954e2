"""Measures meshscope beside what it can be compared with, in the same run: the numbers are ratios.

Every measurement is a process of its own, and its time and peak memory are what the system counted for it:
CPU seconds, because the machine may be busy, and the largest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from meshscope.sources.bundle import open_bundle
from meshscope.store.bundle import write_bundle
from tests.performance.big_bundle import CLIENT, MEGABYTE, RECORDING, BigMesh

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
PAIR = ("reviews-v2.bookinfo", "ratings.bookinfo")
_MESHSCOPE = [sys.executable, "-m", "meshscope"]
_MEASURED = Path(__file__).with_name("measured.py")

_READ = "import sys; raw = open(sys.argv[1], 'rb').read(); "
_DECODERS = {
    "read the bytes only": _READ,
    "json.loads": _READ + "import json; json.loads(raw)",
    "orjson.loads": _READ + "import orjson; orjson.loads(raw)",
    "meshscope, up to where a resource can be asked for": _READ
    + "from meshscope.envoy.config_dump import ConfigDump; ConfigDump(raw)",
    "meshscope, everything": _READ
    + "from meshscope.envoy.config_dump import ConfigDump; dump = ConfigDump(raw); "
    "[dump.bootstrap, dump.clusters, dump.listeners, dump.routes, dump.endpoints, dump.secrets]",
}


class Measured(NamedTuple):
    """The median of some runs of a command."""

    cpu_s: float
    wall_s: float
    peak_mib: float

    def over(self, other: Measured) -> Measured:
        """What this took more than the other."""
        return Measured(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s, self.peak_mib - other.peak_mib)


def _run(argv: Sequence[str]) -> Measured:
    """Raises SystemExit where the command fails; to find something is no failure."""
    launcher = [sys.executable, "-S", str(_MEASURED), *argv]
    finished = subprocess.run(launcher, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    answer = json.loads(finished.stdout)
    if answer["exit_code"] not in (0, 1):
        raise SystemExit(f"{' '.join(argv)}: exit code {answer['exit_code']}: {finished.stderr.decode()}")
    return Measured(answer["cpu_s"], answer["wall_s"], answer["peak_mib"])


def _median(measured: Sequence[Measured]) -> Measured:
    return Measured(*(statistics.median(values) for values in zip(*measured, strict=True)))


def in_turn(commands: dict[str, Sequence[str]], runs: int) -> dict[str, Measured]:
    """Several commands, one after the other in every round, so that a busy moment hits all alike."""
    found: dict[str, list[Measured]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, argv in commands.items():
            found[name].append(_run(argv))
    return {name: _median(values) for name, values in found.items()}


def cold_start(runs: int) -> list[str]:
    """How long a person waits before anything happens."""
    diagnose = [*_MESHSCOPE, "diagnose", *PAIR, "--bundle", str(RECORDING)]
    measured = in_turn(
        {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`meshscope --help`": [*_MESHSCOPE, "--help"],
            "`meshscope diagnose FROM TO`, small bundle": diagnose,
        },
        runs,
    )
    return _table("command", measured, next(iter(measured.values())))


def decoding(dump: Path, runs: int) -> list[str]:
    """The dump alone, decoded by different means; Python and reading the bytes are subtracted."""
    measured = in_turn(
        {name: [sys.executable, "-c", code, str(dump)] for name, code in _DECODERS.items()}, runs
    )
    base, *others = measured
    over = {name: measured[name].over(measured[base]) for name in others}
    return _table("decoder", over, over["json.loads"])


def diagnosis(bundles: dict[str, Path], runs: int) -> list[str]:
    """One pair within a large mesh."""
    measured = in_turn(
        {form: [*_MESHSCOPE, "diagnose", *PAIR, "--bundle", str(path)] for form, path in bundles.items()},
        runs,
    )
    return _table("`meshscope diagnose FROM TO`", measured, next(iter(measured.values())))


def _table(first: str, measured: dict[str, Measured], base: Measured) -> list[str]:
    rows = [f"| {first} | CPU s | ratio | wall s | peak MiB |", "|---|--:|--:|--:|--:|"]
    for name, value in measured.items():
        ratio = value.cpu_s / base.cpu_s
        rows.append(
            f"| {name} | {value.cpu_s:.2f} | {ratio:.2f} | {value.wall_s:.2f} | {value.peak_mib:.0f} |"
        )
    return rows


def report(megabytes: float, runs: int, note: Callable[[str], None]) -> str:
    """The page, measured now."""
    with tempfile.TemporaryDirectory(prefix="meshscope-bench-") as scratch:
        directory, archive = Path(scratch) / "big", Path(scratch) / "big.tar.zst"
        for path in (directory, archive):
            note(f"making {path.name}")
            source = BigMesh(open_bundle(RECORDING), CLIENT, int(megabytes * MEGABYTE))
            write_bundle(source, path)
            source.close()
        dump = next(directory.glob(f"proxies/{CLIENT}*/config_dump.json"))
        forms = {
            "small bundle (.tar.gz)": RECORDING,
            "large bundle (directory)": directory,
            "large bundle (.tar.zst)": archive,
        }
        note("diagnosing")
        diagnosed = diagnosis(forms, runs)
        note("decoding")
        decoded = decoding(dump, runs)
        note("starting")
        started = cold_start(2 * runs + 1)
        size = dump.stat().st_size / MEGABYTE
    return _page(size, diagnosed, decoded, started)


def _page(size: float, diagnosed: list[str], decoded: list[str], started: list[str]) -> str:
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    sections = [
        "# Performance",
        "<!-- Written by scripts/bench --write. -->",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with meshscope {version('meshscope')} on {machine}. "
        "Each number is the median of several processes: what the system counted for each. The machine may have "
        "been busy; compare the ratios, which are of CPU time within one run.",
        "## A pair within a large mesh",
        f"The caller's configuration dump has {size:.0f} MB (thousands of services with clusters, endpoints, routes "
        "and listeners, made by `scripts/big-bundle` from a recording of a real Istio). The finding is the same as "
        "in the small one.",
        "\n".join(diagnosed),
        "## Decoding that dump",
        "Beyond starting Python and reading the file.",
        "\n".join(decoded),
        "## Start",
        "\n".join(started),
    ]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes", type=float, default=50, help="the size of the large configuration dump"
    )
    parser.add_argument("--runs", type=int, default=5, help="of how many runs to take the median")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name} in docs/")
    arguments = parser.parse_args()
    page = report(arguments.megabytes, arguments.runs, lambda step: _say(f"{step} …"))
    sys.stdout.write(page)
    if arguments.write:
        DOCUMENT.write_text(page)
        _say(f"wrote {DOCUMENT}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
