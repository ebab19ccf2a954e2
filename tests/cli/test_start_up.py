"""What is felt at every call: help loads no more than the command line itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "cryptography", "envoy", "envoy_data_plane", "grpc", "kubernetes", "orjson", "re2", "textual", "yaml",
    "zstandard",
}  # fmt: skip
ALLOWED = {"meshscope.cli", "meshscope.report", "meshscope.report.safe"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([command, "--help"] for command in ("diagnose", "demo", "pc", "ps"))],
)
def test_help_loads_neither_heavy_libraries_nor_the_engine(arguments: list[str]) -> None:
    code = (
        "import json, sys; from meshscope.cli.main import run; run(sys.argv[1:]);"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    loaded = json.loads(ran.stderr)
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
    ours = {
        name for name in loaded if name.startswith("meshscope.") and not name.startswith("meshscope.cli.")
    }
    assert ours <= ALLOWED
