"""`meshscope capture`: keeps what can be read of a mesh as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from meshscope.cli.exits import CommandError, Exit
from meshscope.cli.output import say
from meshscope.cli.reach import Reach

if TYPE_CHECKING:
    from meshscope.sources.source import Source

_FEW = 5
_ARCHIVES = (".zip", ".7z", ".rar", ".xz", ".bz2", ".gz", ".zst")
_BUNDLES = (".tar.gz", ".tar.zst")


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
    check_name(output)
    reach = reach or Reach()
    with reach.opened() as opened:
        write(opened, output, force=force)
    return Exit.OK


def check_name(path: Path) -> None:
    """Refuses the name of an archive of another form, which would become a directory."""
    if path.name.endswith(_ARCHIVES) and not path.name.endswith(_BUNDLES):
        raise CommandError(f"{path}: a bundle is a directory, or a .tar.zst or .tar.gz file")


def write(source: Source, path: Path, *, force: bool) -> None:
    """Writes a source as a bundle and says what became of it."""
    from meshscope.store.bundle import StoreError, write_bundle

    try:
        written = write_bundle(source, path, force=force)
    except StoreError as error:
        raise CommandError(str(error), error.exit_code) from error
    say(f"wrote {path}: {written.proxies} proxies, {written.objects} Kubernetes objects")
    for problem in written.problems[:_FEW]:
        say(f"  without {problem.what}: {problem.why}")
    if len(written.problems) > _FEW:
        say(f"  and without {len(written.problems) - _FEW} more")
