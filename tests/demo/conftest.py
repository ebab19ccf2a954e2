"""A runtime directory of their own for the demo's tests, and no running of Envoy where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshscope.demo.envoy_binary import DemoUnavailableError, envoy_path


@pytest.fixture
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        envoy_path()
    except DemoUnavailableError as error:
        skip = pytest.mark.skip(reason=str(error))
        here = Path(__file__).parent
        for item in items:
            if item.get_closest_marker("slow") and here in item.path.parents:
                item.add_marker(skip)
