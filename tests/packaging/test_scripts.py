"""The scripts of the repository: what they say when Python will not do, from any directory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    --version) echo "Python {version}" ;;
    *version_info*) exit {too_old} ;;
    *ensurepip*) exit {no_ensurepip} ;;
    *) exit 1 ;;
esac
"""


def fake_machine(
    root: Path, repository: Path, *, version: str = "3.11.9", too_old: int = 0, no_ensurepip: int = 0
) -> Path:
    """A copy of the scripts, and a `bin` with nothing but coreutils and Pythons that behave as told."""
    (root / "scripts").mkdir()
    for script in ("_venv.sh", "demo", "test"):
        (root / "scripts" / script).write_bytes((repository / "scripts" / script).read_bytes())
        (root / "scripts" / script).chmod(0o755)
    binaries = root / "bin"
    binaries.mkdir()
    for tool in ("bash", "basename", "cat", "dirname", "env", "grep", "rm", "sh"):
        (binaries / tool).symlink_to(
            next(Path(d) / tool for d in ("/bin", "/usr/bin") if (Path(d) / tool).exists())
        )
    for python in ("python3", "python3.13", "python3.12", "python3.11"):
        (binaries / python).write_text(
            FAKE_PYTHON.format(version=version, too_old=too_old, no_ensurepip=no_ensurepip)
        )
        (binaries / python).chmod(0o755)
    return root


def refusal(root: Path, script: str) -> str:
    finished = subprocess.run(
        [root / "scripts" / script],
        cwd="/",
        env={"PATH": str(root / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    return finished.stderr


@pytest.mark.parametrize("script", ["demo", "test"])
def test_an_old_python_is_refused_in_one_line(tmp_path: Path, repository: Path, script: str) -> None:
    said = refusal(fake_machine(tmp_path, repository, version="3.9.1", too_old=1), script)
    assert said.splitlines() == [
        f"{script}: needs Python 3.11 or newer as python3, python3.13, python3.12 or python3.11; "
        "found Python 3.9.1"
    ]


@pytest.mark.parametrize("script", ["demo", "test"])
def test_a_python_without_ensurepip_is_refused_in_one_line(
    tmp_path: Path, repository: Path, script: str
) -> None:
    (said,) = refusal(fake_machine(tmp_path, repository, no_ensurepip=1), script).splitlines()
    assert "ensurepip" in said
    assert "apt-get install python3-venv" in said


def test_every_command_among_the_scripts_is_executable(repository: Path) -> None:
    commands = [path for path in (repository / "scripts").iterdir() if path.is_file() and not path.suffix]
    assert commands
    assert [path.name for path in commands if not os.access(path, os.X_OK)] == []
