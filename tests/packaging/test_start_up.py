"""Start-up is felt at every call: a heavy library is loaded by the command that uses it, by no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"cryptography", "envoy_data_plane", "grpc", "kubernetes", "textual", "yaml", "zstandard"}


@pytest.mark.parametrize("module", ["meshscope", "meshscope.model", "meshscope.cli.main"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)
