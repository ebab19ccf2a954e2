"""Reads a bundle's archive: decides what may be taken, and never makes a path of a name found inside."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple, cast

import zstandard

from meshscope.model.findings import Unavailable
from meshscope.sources.files import MAX_FILE_BYTES, MAX_FILES, missing
from meshscope.sources.layout import belongs
from meshscope.sources.source import SourceError

MAX_TOTAL_BYTES = 2 * 1024**3
"""A hundred proxies with dumps of 20 MB each; what a runaway archive may cost of the disk at most."""
MAX_HEADER_BYTES = 1024**2
"""Headers say a name and a time. tarfile holds an extended header in memory whole, whatever its size."""
MAX_TRAILING_BYTES = 16 * 1024**2
"""Writers fill up the last record (512 bytes to some KiB); what goes on for longer isn't padding."""
ZSTD_WINDOW_BYTES = 128 * 1024**2
"""What the zstd command itself accepts unless told otherwise; the frame's header asks for the memory."""
_CHUNK = 1024**2

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_USTAR_OFFSET = 257


class _Place(NamedTuple):
    offset: int
    size: int
    modified: float


class Archive:
    """The members of a tar archive, plain or compressed with gzip or Zstandard.

    What belongs to the format goes into one unnamed temporary file, which the system removes with the
    process, however that ends. Raises SourceError for a broken archive and for one that isn't safe to read.
    """

    problems: tuple[Unavailable, ...] = ()

    def __init__(self, path: Path) -> None:
        self._places: dict[str, _Place] = {}
        self._kept = tempfile.TemporaryFile(prefix="meshscope-")  # noqa: SIM115 (closed by close())
        try:
            with open(path, "rb") as file:
                self._read(file, str(path))
        except SourceError:
            self.close()
            raise
        except (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, ValueError) as error:
            self.close()
            raise SourceError(f"{path}: the archive is broken: {error}; copy or capture it again") from error
        except OSError as error:
            self.close()
            raise SourceError(f"{path}: can't be read: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise
        self._places = _without_top_folder(self._places)
        self.paths = tuple(sorted(self._places))

    def read(self, path: str) -> bytes | Unavailable:
        place = self._places.get(path)
        if place is None:
            return missing(path)
        return os.pread(self._kept.fileno(), place.size, place.offset)

    def modified(self, path: str) -> float:
        place = self._places.get(path)
        return place.modified if place else 0.0

    def close(self) -> None:
        self._kept.close()

    def _read(self, file: IO[bytes], name: str) -> None:
        metered = _Metered(_decompressed(file, name), name)
        metered.header_budget = MAX_HEADER_BYTES
        seen: set[str] = set()
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_Member) as tar:
            # `r|` has read the first header already, and `next()` gives it first.
            while (member := tar.next()) is not None:
                path = _safe_path(member, name)
                if path in seen and not member.isdir():
                    raise SourceError(f"{name}: has {path!r} twice; which of them is meant can't be told")
                seen.add(path)
                if len(seen) > MAX_FILES:
                    raise SourceError(f"{name}: has more than {MAX_FILES} members; this is no bundle")
                metered.header_budget = None
                if member.isfile():
                    self._take(tar, member, path, name)
                metered.header_budget = MAX_HEADER_BYTES
        metered.finish()

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, name: str) -> None:
        if member.size > MAX_FILE_BYTES:
            raise _too_large(f"{name}: {path!r}", MAX_FILE_BYTES)
        data = tar.extractfile(member)
        if data is None:
            raise SourceError(f"{name}: {path!r} has no content")
        keep = belongs(path) or belongs(path.partition("/")[2])
        start, size = self._kept.tell(), 0
        while chunk := data.read(_CHUNK):
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise _too_large(f"{name}: {path!r}", MAX_FILE_BYTES)
            if keep:
                self._kept.write(chunk)
        if keep:
            self._kept.flush()
            self._places[path] = _Place(start, size, float(member.mtime))


class _Member(tarfile.TarInfo):
    """A member whose header must be right: tarfile takes a broken or absent one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if str(error) == _END_OF_ARCHIVE:
                raise
            raise tarfile.ReadError(f"{error} (the archive may be cut off)") from error


_END_OF_ARCHIVE = "end of file header"
"""How tarfile names the block of zeros that ends every archive; its own class for it isn't public."""


class _Metered(io.RawIOBase):
    """A stream that is read up to the limits and no further: nothing a header says is believed."""

    def __init__(self, inner: IO[bytes], name: str) -> None:
        self._inner = inner
        self._name = name
        self._total = 0
        self.header_budget: int | None = None
        """How many bytes may still be read as headers; None while a member's content is read."""

    def read(self, size: int = -1, /) -> bytes:
        data = self._inner.read(size)
        self._total += len(data)
        if self._total > MAX_TOTAL_BYTES:
            raise _too_large(self._name, MAX_TOTAL_BYTES)
        if self.header_budget is not None:
            self.header_budget -= len(data)
            if self.header_budget < 0:
                raise SourceError(
                    f"{self._name}: a header larger than {MAX_HEADER_BYTES // 1024} KiB; this is no bundle"
                )
        return data

    def finish(self) -> None:
        """Reads to the end, where gzip and Zstandard have their checksums."""
        self.header_budget = None
        read = 0
        while data := self.read(_CHUNK):
            read += len(data)
            if read > MAX_TRAILING_BYTES:
                raise SourceError(f"{self._name}: goes on after the archive's end; this is no bundle")


def _decompressed(file: IO[bytes], name: str) -> IO[bytes]:
    start = file.read(_USTAR_OFFSET + 5)
    file.seek(0)
    if start.startswith(_GZIP):
        import gzip

        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if start.startswith(_ZSTD) or _is_skippable_frame(start):
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        return decompressor.stream_reader(file, read_across_frames=True)
    if start[_USTAR_OFFSET:] == b"ustar":
        return file
    why = (
        "it is empty"
        if not start
        else "it is neither a directory nor a tar archive (.tar, .tar.gz, .tar.zst)"
    )
    raise SourceError(f"{name}: not a bundle: {why}")


def _is_skippable_frame(start: bytes) -> bool:
    """Parallel writers of Zstandard begin with one (RFC 8878, 3.1.2)."""
    return len(start) >= 4 and start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50


def _safe_path(member: tarfile.TarInfo, name: str) -> str:
    """The member's path within the bundle; raises SourceError for what has no business in one."""
    if not (member.isfile() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise SourceError(f"{name}: unsafe archive: {member.name!r} is {kind}")
    if member.name.startswith("/"):
        raise SourceError(f"{name}: unsafe archive: {member.name!r} is an absolute path")
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SourceError(f"{name}: unsafe archive: {member.name!r} leads out of it")
    return "/".join(parts)


def _without_top_folder(places: dict[str, _Place]) -> dict[str, _Place]:
    """The bundle itself, where all of it lies within one folder (`tar -c FOLDER`)."""
    own = {path: place for path, place in places.items() if belongs(path)}
    if own or len({path.partition("/")[0] for path in places}) != 1:
        return own
    return {path.partition("/")[2]: place for path, place in places.items()}


def _too_large(what: str, limit: int) -> SourceError:
    return SourceError(f"{what} is larger than {limit // 1024**2} MiB unpacked; this is no bundle")
