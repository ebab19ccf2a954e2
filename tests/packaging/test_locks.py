"""The locks hold every dependency with hashes, agree with each other, and name no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return project


def pinned(lock: Path) -> dict[str, str]:
    """Package to version."""
    pins = re.findall(r"^(\S+)==(\S+) \\$", lock.read_text(), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize(("lock", "extras"), [("demo", ["demo"]), ("dev", ["demo", "dev"])])
def test_a_lock_holds_what_the_project_asks_for(
    repository: Path, project: dict[str, Any], lock: str, extras: list[str]
) -> None:
    pins = pinned(repository / "requirements" / f"{lock}.lock")
    asked = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    missing = [
        line
        for line in asked
        if not (requirement := Requirement(line)).specifier.contains(
            pins.get(canonicalize_name(requirement.name), "0")
        )
    ]
    assert not missing, "run scripts/lock"


def test_both_locks_hold_the_same_versions(repository: Path) -> None:
    demo, dev = (pinned(repository / "requirements" / f"{name}.lock") for name in ("demo", "dev"))
    assert demo.items() <= dev.items()


@pytest.mark.parametrize("lock", ["demo", "dev"])
def test_every_pin_has_hashes_and_no_index_is_named(repository: Path, lock: str) -> None:
    text = (repository / "requirements" / f"{lock}.lock").read_text()
    requirements = [line for line in text.replace("\\\n", "").splitlines() if re.match(r"\w", line)]
    assert requirements
    assert not [line for line in requirements if "--hash=sha256:" not in line]
    assert not re.search(r"://|^-", text, flags=re.MULTILINE)
