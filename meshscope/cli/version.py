"""`meshscope version`: the version of meshscope, and of what it runs on."""

from __future__ import annotations

import platform

from meshscope import __version__
from meshscope.cli.exits import Exit
from meshscope.cli.output import write_stdout


def version() -> int:
    """The version of meshscope, and of the Python and system that it runs on."""
    runs_on = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    write_stdout(f"meshscope {__version__} ({runs_on})\n")
    return Exit.OK
