"""`meshscope completion`: the completion script for a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say, write_stdout


def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], Parameter(name="SHELL", help="The shell to complete in.")
    ],
    /,
) -> int:
    """The completion script for a shell, to be kept where the shell looks for such scripts.

    'meshscope --install-completion' does that for the shell in use.
    """
    from meshscope.cli.main import app

    write_stdout(app.generate_completion(shell=shell))
    return Exit.OK


def install(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="The shell; else the one in use.")
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"), help="Where to, instead of the shell's own place.", metavar="PATH"
        ),
    ] = None,
) -> int:
    """Install the completion where the shell looks for it; bash and zsh get a line in their start-up file."""
    from cyclopts.completion.detect import ShellDetectionError

    from meshscope.cli.main import app

    try:
        path = app.install_completion(shell=shell, output=output, add_to_startup=output is None)
    except ShellDetectionError as error:
        raise CommandError("can't tell which shell this is: give --shell bash, zsh or fish") from error
    except OSError as error:
        raise CommandError(f"can't write {error.filename}: {error.strerror}") from error
    say(
        f"installed {path}{_start_up(path) if output is None else ''}; new shells complete meshscope's commands"
    )
    return Exit.OK


def _start_up(script: Path) -> str:
    """Which start-up file leads to the script now: fish needs none, nor does oh-my-zsh."""
    name = ".zshrc" if script.name.startswith("_") else ".bashrc"
    try:
        leads = str(script.parent) in (Path.home() / name).read_text(errors="replace")
    except OSError:
        return ""
    return f", and a line for it in ~/{name}" if leads else ""
