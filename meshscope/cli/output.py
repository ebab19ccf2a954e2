"""Where output goes: documents to stdout and files, narration to stderr."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from meshscope.cli.exits import CommandError
from meshscope.report.safe import encodable, one_line


class Style(NamedTuple):
    """How text is laid out on the output at hand."""

    width: int
    color: bool
    verbose: bool = False


def stdout_style(*, no_color: bool, verbose: bool = False) -> Style:
    """A terminal's width, and colour if it takes any; 80 plain columns elsewhere."""
    if not sys.stdout.isatty():
        return Style(80, color=False, verbose=verbose)
    color = not (no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb")
    return Style(shutil.get_terminal_size((80, 24)).columns, color, verbose)


PLAIN = Style(80, color=False)


def say(message: str) -> None:
    """One line of narration."""
    text = encodable(one_line(message), sys.stderr.encoding)
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def write_stdout(text: str) -> None:
    """The one document of this run. A reader that has gone away ends the writing, not the run."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(encodable(text, encoding).encode(encoding, "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python would complain at exit when it flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class FileOutput(NamedTuple):
    """A document to be written to a file, as `--out FORMAT=PATH` asks."""

    format: str
    path: Path


def parse_file_outputs(texts: Sequence[str], formats: Sequence[str]) -> tuple[FileOutput, ...]:
    """`FORMAT=PATH`, each checked before any work is done."""
    found = []
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path or name not in formats:
            raise CommandError(
                f"--out takes FORMAT=PATH with FORMAT one of {', '.join(formats)}; got {text!r}"
            )
        if path == "-":
            raise CommandError(f"--out {text!r} writes a file: use -o {name} for standard output")
        target = Path(path)
        if target.is_dir() or not target.absolute().parent.is_dir():
            raise CommandError(f"--out {text!r}: {path!r} is a directory, or in one that doesn't exist")
        found.append(FileOutput(name, target))
    return tuple(found)


def write_files(outputs: Sequence[FileOutput], render: Callable[[str], str]) -> None:
    """All files or, if one can't be written, as few as possible: nobody ever reads half a document."""
    staged: list[tuple[str, Path]] = []
    try:
        for output in outputs:
            staged.append((_stage(output.path, render(output.format)), output.path))
        for temporary, path in staged:
            if temporary:
                os.replace(temporary, os.path.realpath(path))
    except OSError as error:
        raise CommandError(f"can't write {error.filename or 'the output'}: {error.strerror}") from error
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                os.unlink(temporary)


def _stage(path: Path, text: str) -> str:
    """The document beside its place, to be renamed; "" where it went straight into a device or pipe."""
    data = text.encode("utf-8", "backslashreplace")
    mode = 0o666 & ~_umask()
    if path.exists():
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            path.write_bytes(data)
            return ""
    directory = os.path.dirname(os.path.realpath(path))
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".meshscope-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, stat.S_IMODE(mode))
            file.write(data)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
