"""The files of a bundle by their path within it, wherever they are kept; reads nothing outside of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from meshscope.model.findings import Unavailable
from meshscope.sources.layout import DESCRIPTION, FOLDERS, belongs
from meshscope.sources.source import SourceError

MAX_FILE_BYTES = 512 * 1024**2
"""Ten times the largest configuration dump of a proxy in a big mesh; decoding takes a multiple of it."""
MAX_FILES = 100_000
"""Ten thousand proxies with all their parts."""
_MAX_DEPTH = 8
"""The format's own paths are five deep."""


class Files(Protocol):
    """Files by their path in the bundle."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths of the format that there are, sorted."""
        ...

    @property
    def problems(self) -> tuple[Unavailable, ...]:
        """What is there and wasn't taken."""
        ...

    def read(self, path: str) -> bytes | Unavailable: ...

    def modified(self, path: str) -> float:
        """When the file was last written, in seconds since 1970; 0 where nothing tells."""
        ...

    def close(self) -> None: ...


def missing(path: str) -> Unavailable:
    return Unavailable(path, "it isn't in the bundle", "capture again, with the right to read it")


class Directory:
    """A directory: only the format's own paths are looked at. Raises SourceError where it can't be listed.

    `at` is where in a bundle the directory belongs ("kubernetes/"); "" is a bundle's root.
    """

    def __init__(self, root: Path, at: str = "") -> None:
        self._root = os.path.realpath(root)
        self._at = at
        self._problems: list[Unavailable] = []
        self._files = self._index()
        self.paths = tuple(sorted(self._files))

    @property
    def problems(self) -> tuple[Unavailable, ...]:
        return tuple(self._problems)

    def read(self, path: str) -> bytes | Unavailable:
        place = self._files.get(path)
        if place is None:
            return missing(path)
        try:
            return read_regular(place)
        except OSError as error:
            return Unavailable(path, f"it can't be read: {error.strerror or error}", "see its permissions")

    def modified(self, path: str) -> float:
        try:
            return os.stat(self._files[path]).st_mtime
        except (KeyError, OSError):
            return 0.0

    def close(self) -> None:
        """Nothing is held open."""

    def _index(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for path, place in self._walk(self._root, self._at, 0):
            if belongs(path):
                found[path] = place
            if len(found) > MAX_FILES:
                raise SourceError(f"{self._root}: more than {MAX_FILES} files; this is no bundle")
        return found

    def _walk(self, folder: str, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if depth == 0:
                raise SourceError(f"{folder}: can't be listed: {error.strerror}") from error
            self._leave(prefix.rstrip("/"), f"can't be listed: {error.strerror}", "see its permissions")
            return
        for entry in listed:
            path = prefix + entry.name
            if not prefix and entry.name not in FOLDERS and entry.name != DESCRIPTION:
                continue
            place = self._inside(entry, path)
            if place is None:
                continue
            if os.path.isdir(place):
                if depth < _MAX_DEPTH:
                    yield from self._walk(place, f"{path}/", depth + 1)
            elif os.path.isfile(place):
                yield path, place
            else:
                self._leave(path, "it is neither a file nor a folder", "put a file in its place")

    def _inside(self, entry: os.DirEntry[str], path: str) -> str | None:
        """Where an entry really is, unless that is outside of the bundle or nowhere."""
        if not entry.is_symlink():
            return entry.path
        place = os.path.realpath(entry.path)
        if not place.startswith(self._root + os.sep):
            self._leave(path, "it is a link that leads out of the bundle", "put the file itself in its place")
            return None
        if not os.path.isfile(place):
            self._leave(path, "it is a link, and not to a file", "put the file itself in its place")
            return None
        return place

    def _leave(self, path: str, why: str, remedy: str) -> None:
        self._problems.append(Unavailable(path, why, remedy))


def read_regular(place: str | Path) -> bytes:
    """The bytes of a regular file; never waits for a writer, as opening a FIFO would. Raises OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it isn't a regular file")
        # Files under /proc and files that grow say less than they give: the limit holds for what is read.
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_FILE_BYTES // 1024**2} MiB")
    return data
