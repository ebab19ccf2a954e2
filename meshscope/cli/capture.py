"""`meshscope capture`: keeps what can be read of a mesh as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say
from meshscope.cli.reach import Reach


def capture(
    *,
    output: Annotated[
        Path,
        Parameter(
            name=("--output", "-o"), help="A directory, or a .tar.zst or .tar.gz file.", metavar="PATH"
        ),
    ],
    force: Annotated[bool, Parameter(negative=(), help="Overwrite what is there.")] = False,
    reach: Reach | None = None,
) -> int:
    """Keep what can be read of a mesh as a bundle, which every command reads with --bundle.

    Private keys, tokens and cookies are left out.
    """
    reach = reach or Reach()
    if output.exists() and not force:
        raise CommandError(f"{str(output)!r} exists; --force overwrites it")
    with reach.opened() as opened:
        from meshscope.store.write import write_bundle

        write_bundle(opened, output)
    say(f"wrote {output}")
    return Exit.OK
