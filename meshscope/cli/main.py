"""The command `meshscope`: finds the command asked for and turns every ending into an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from meshscope import __version__
from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.help import COMMANDS, OVERVIEW
from meshscope.cli.output import say
from meshscope.cli.reach import ONLY_DEMO


def _shown_default(value: object) -> str | None:
    """A default is worth showing where it says something."""
    return None if value in (None, "", False) else str(value)


app = App(
    name="meshscope",
    help=OVERVIEW,
    help_format="plaintext",
    version=f"meshscope {__version__}",
    version_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    print_error=False,
    exit_on_error=False,
    default_parameter=Parameter(show_default=_shown_default),
)
for _order, (_name, _help) in enumerate(COMMANDS.items()):
    _module = _name.replace("-", "_")
    app.command(
        f"meshscope.cli.{_module}:{_module}",
        name=(_name, *_help.aliases),
        help=_help.summary,
        help_epilogue=_help.epilogue if _help.examples else "",
        sort_key=_order,
    )
app.command(
    "meshscope.cli.completion:install",
    name="--install-completion",
    help="Install the completion for the shell in use.",
    sort_key=len(COMMANDS),
)


def main() -> NoReturn:
    """Runs the command line of this process."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(sys.argv[1:]))


def run(tokens: Sequence[str]) -> int:
    """Runs one command line and gives its exit code."""
    try:
        return int(app(_with_bare_demo(tokens)) or Exit.OK)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except CommandError as error:
        say(f"meshscope: {error}")
        for line in error.details:
            say(f"  {line}")
        return error.exit_code
    except CycloptsError as error:
        say(f"meshscope: {_wrong_usage(error)}")
        return Exit.USAGE
    except BrokenPipeError:
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets one line, not a traceback
        return _internal_error(error)


def _with_bare_demo(tokens: Sequence[str]) -> list[str]:
    """Gives `--demo` without a process id its value, as options otherwise always take one."""
    found: list[str] = []
    for position, token in enumerate(tokens):
        following = tokens[position + 1] if position + 1 < len(tokens) else ""
        is_bare = token == "--demo" and not following.isdigit() and "--" not in tokens[:position]
        found.append(f"--demo={ONLY_DEMO}" if is_bare else token)
    return found


def _wrong_usage(error: CycloptsError) -> str:
    """What is wrong, and whose help says how it is right."""
    said = str(error)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        said = f"Too many arguments: {' '.join(map(repr, error.unused_tokens))}."
    return f"{said} Try '{' '.join(('meshscope', *(error.command_chain or ()), '--help'))}'."


def _internal_error(error: Exception) -> int:
    if os.environ.get("MESHSCOPE_DEBUG"):
        raise error
    say(
        f"meshscope: internal error: {type(error).__name__}: {error}; please report it"
        " (run again with MESHSCOPE_DEBUG=1 for the traceback)"
    )
    return Exit.USAGE


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Ends as on an error, so that whatever was opened is closed."""
    sys.exit(128 + number)
