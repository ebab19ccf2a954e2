"""Runs command lines as the shell would, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from meshscope.cli.main import run


class Ran(NamedTuple):
    """How a command line ended."""

    code: int
    stdout: str
    stderr: str


Meshscope = Callable[..., Ran]


@pytest.fixture
def meshscope(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Meshscope:
    """Runs `meshscope ARGUMENTS…` where no demo mesh runs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MESHSCOPE_DEBUG", raising=False)

    def call(*arguments: str | Path) -> Ran:
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def denied(repository: Path) -> Path:
    """A bundle of a real Istio in which a DENY policy refuses calls."""
    return repository / "tests" / "data" / "istio" / "authz-deny.tar.gz"


@pytest.fixture(scope="session")
def healthy(repository: Path) -> Path:
    """A bundle of a real Istio in which nothing fails."""
    return repository / "tests" / "data" / "istio" / "healthy-fullstats.tar.gz"
