"""Where the demo can't run it says in one line what it would take."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from meshscope.demo.envoy_binary import DemoUnavailableError, envoy_path


def test_on_macos_the_line_says_what_it_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DemoUnavailableError, match="aliases on lo0") as caught:
        envoy_path()
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "envoy", ModuleType("envoy"))
    with pytest.raises(DemoUnavailableError, match=r"pip install 'meshscope\[demo\]'") as caught:
        envoy_path()
    assert "\n" not in str(caught.value)
