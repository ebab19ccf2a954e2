"""What all tests share: where the checkout is, Hypothesis' profile, and what needs a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The machine that runs the tests is shared and small: time is no property of the code under test.
settings.register_profile("meshscope", deadline=None, print_blob=True)
settings.load_profile("meshscope")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", action="store_true", help="run the tests that need a cluster and root")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--cluster"):
        return
    skip = pytest.mark.skip(reason="needs a Kubernetes cluster, root and system packages: run with --cluster")
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(skip)
