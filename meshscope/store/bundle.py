"""Writes a bundle from any source, whole or not at all, and without secrets."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec
import orjson

from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ProxyId
from meshscope.sources import layout
from meshscope.sources.source import Part, Source
from meshscope.store.redaction import redact_bytes, redact_document, redact_object, redact_variables

_CONCURRENT = 8
"""How many proxies are read, and held in memory, at a time."""
_ZSTD_LEVEL = 10
"""A third smaller than the default level, and still faster than proxies answer."""
_OF_LINKERD = frozenset({Part.ENV, Part.IDENTITY})
"""Parts that no Envoy has: that they are missing says nothing."""
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_CLUSTER_SCOPED = "_cluster"
"""No namespace's name begins with an underscore."""


class StoreError(Exception):
    """A bundle can't be written: what, why, and what to do. Exit code 2, or 3 where nothing could be read."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Written(msgspec.Struct, frozen=True):
    """What a bundle got: `size_bytes` is what its files have, unpacked; `problems` what couldn't be had."""

    path: Path
    files: int
    size_bytes: int
    proxies: int
    objects: int
    problems: tuple[Unavailable, ...] = ()


def write_bundle(source: Source, path: Path, *, force: bool = False) -> Written:
    """Writes all that `source` gives to `path`: `.tar.zst`, `.tar.gz`, `.tar`, else a directory.

    What is at `path` is replaced with `force` only, and only by its like (a directory only if it holds a
    bundle). Raises StoreError; then nothing is left behind.
    """
    form = _form(path)
    _check_target(path, form, force)
    problems: list[Unavailable] = []
    counted = _Counted()
    try:
        with _beside(path) as partial:
            with form.sink(partial, source.capture.captured_at) as sink:
                for name, data in _contents(source, problems, counted):
                    sink.add(name, data)
                    counted.files += 1
                    counted.size_bytes += len(data)
            if not counted.proxies and not counted.objects:
                raise StoreError("nothing could be read, so there is no bundle to write", exit_code=3)
            form.publish(partial, path, force=force)
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error.strerror or error}") from error
    return Written(
        path,
        counted.files,
        counted.size_bytes,
        counted.proxies,
        counted.objects,
        tuple(dict.fromkeys(problems)),
    )


class _Counted:
    files = 0
    size_bytes = 0
    proxies = 0
    objects = 0


# --- what goes in -------------------------------------------------------------------------------------------

_File = tuple[str, bytes]


def _contents(source: Source, problems: list[Unavailable], counted: _Counted) -> Iterator[_File]:
    """The bundle's files by path, the description last, because it names only samples that were taken."""
    names: set[str] = set()
    for name, data in _readings(source, problems, counted):
        names.add(name)
        yield name, data
    yield layout.DESCRIPTION, _description(source, names)


def _readings(source: Source, problems: list[Unavailable], counted: _Counted) -> Iterator[_File]:
    proxies = [proxy for proxy in source.proxies() if _is_nameable(problems, proxy.namespace, proxy.pod)]
    with ThreadPoolExecutor(_CONCURRENT) as pool:
        for start in range(0, len(proxies), _CONCURRENT):
            for read in pool.map(lambda proxy: _proxy(source, proxy), proxies[start : start + _CONCURRENT]):
                found = list(_kept(read, problems))
                counted.proxies += bool(found)
                yield from found
    yield from _kubernetes(source, problems, counted)
    for pod in source.control_planes():
        if _is_nameable(problems, pod):
            yield from _kept(_control_plane(source, pod, proxies), problems)


def _kept(readings: Iterable[_File | Unavailable], problems: list[Unavailable]) -> Iterator[_File]:
    for reading in readings:
        if isinstance(reading, Unavailable):
            problems.append(reading)
        else:
            yield reading


def _is_nameable(problems: list[Unavailable], *names: str) -> bool:
    """Whether names from a cluster can be folders' names; what a hostile one would write to, nobody knows."""
    strange = [
        name for name in names if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > 253
    ]
    problems.extend(
        Unavailable(repr(name), "it can't be the name of a pod or a namespace") for name in strange
    )
    return not strange


def _proxy(source: Source, proxy: ProxyId) -> list[_File | Unavailable]:
    """All parts of a proxy without secrets."""
    found: list[_File | Unavailable] = []
    for part in Part:
        data = source.read(proxy, part)
        name = layout.part_path(proxy, part)
        if isinstance(data, bytes):
            found.append(_clean(name, data))
        elif part not in _OF_LINKERD:
            found.append(data)
    return found


def _control_plane(source: Source, pod: str, proxies: list[ProxyId]) -> Iterator[_File | Unavailable]:
    paths = [layout.ISTIOD_SYNC, layout.ISTIOD_METRICS, layout.CONTROL_LOG]
    paths += [layout.istiod_config_dump(proxy) for proxy in proxies]
    for path in paths:
        data = source.read_control_plane(pod, path)
        yield _clean(layout.istiod_path(pod, path), data) if isinstance(data, bytes) else data


def _clean(name: str, data: bytes) -> _File | Unavailable:
    if not name.endswith(".json"):
        return name, redact_bytes(data)
    cleaned = (
        redact_document(data, redact_variables) if name.endswith(Part.ENV.value) else redact_document(data)
    )
    if cleaned is None:
        return Unavailable(
            name, "it isn't JSON, so it can't be searched for secrets, and wasn't written", "read it again"
        )
    return name, cleaned


def _kubernetes(source: Source, problems: list[Unavailable], counted: _Counted) -> Iterator[_File]:
    read = source.kubernetes()
    if isinstance(read, Unavailable):
        problems.append(read)
        return
    problems.extend(read.problems)
    files: dict[str, list[KubernetesObject]] = {}
    for found in read.objects:
        namespace = found.metadata.namespace
        files.setdefault(namespace if _NAMESPACE.fullmatch(namespace) else _CLUSTER_SCOPED, []).append(found)
    for name, objects in sorted(files.items()):
        counted.objects += len(objects)
        items = [redact_object(found.body) for found in objects]
        document = {"apiVersion": "v1", "kind": "List", "items": items}
        yield f"kubernetes/{name}.json", orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _description(source: Source, names: set[str]) -> bytes:
    capture = source.capture
    description: dict[str, Any] = {
        "schema": 1,
        "captured_at": _rfc3339(capture.captured_at),
        "cluster": capture.cluster,
        "meshes": list(capture.meshes),
        "samples": {name: _rfc3339(at) for name, at in sorted(capture.samples.items()) if name in names},
    }
    return orjson.dumps(description, option=orjson.OPT_INDENT_2)


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- where it goes ------------------------------------------------------------------------------------------


class _Sink(Protocol):
    def add(self, name: str, data: bytes) -> None: ...


class _Form(Protocol):
    def sink(self, partial: Path, time: datetime) -> AbstractContextManager[_Sink]: ...

    def publish(self, partial: Path, path: Path, *, force: bool) -> None: ...


class _DirectoryForm:
    """Files in folders, readable for their owner alone."""

    @contextmanager
    def sink(self, partial: Path, time: datetime) -> Iterator[_Sink]:
        partial.mkdir(mode=0o700)
        yield _DirectorySink(partial)

    def publish(self, partial: Path, path: Path, *, force: bool) -> None:
        if not os.path.lexists(path):
            partial.rename(path)
            return
        if not force:
            raise _exists(path)
        old = _partial_name(path)
        path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old)


class _DirectorySink:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, name: str, data: bytes) -> None:
        place = self._root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)


class _ArchiveForm:
    """A tar archive; the same content at the same time gives the same bytes."""

    def __init__(self, compression: str) -> None:
        self._compression = compression

    @contextmanager
    def sink(self, partial: Path, time: datetime) -> Iterator[_Sink]:
        with ExitStack() as stack:
            file = stack.enter_context(
                open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            )
            stream = stack.enter_context(_compressed(file, self._compression))
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="w|"))
            yield _TarSink(tar, int(time.timestamp()))

    def publish(self, partial: Path, path: Path, *, force: bool) -> None:
        if force:
            partial.replace(path)
            return
        try:
            # Unlike a rename, a link doesn't replace what came there in the meantime.
            os.link(partial, path)
        except FileExistsError:
            raise _exists(path) from None
        except OSError:
            if os.path.lexists(path):
                raise _exists(path) from None
            partial.rename(path)


class _TarSink:
    def __init__(self, tar: tarfile.TarFile, time: int) -> None:
        self._tar = tar
        self._time = time

    def add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(data), self._time, 0o600
        self._tar.addfile(member, io.BytesIO(data))


def _compressed(file: IO[bytes], compression: str) -> AbstractContextManager[IO[bytes]]:
    if compression == "gzip":
        import gzip

        return cast(IO[bytes], gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0))
    if compression == "zstd":
        import zstandard

        return cast(IO[bytes], zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(file, closefd=False))
    return _Plain(file)


class _Plain(AbstractContextManager[IO[bytes]]):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __enter__(self) -> IO[bytes]:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.flush()


_SUFFIXES = {".tar.zst": "zstd", ".tzst": "zstd", ".tar.gz": "gzip", ".tgz": "gzip", ".tar": ""}


def _form(path: Path) -> _Form:
    for suffix, compression in _SUFFIXES.items():
        if path.name.endswith(suffix):
            return _ArchiveForm(compression)
    return _DirectoryForm()


def _check_target(path: Path, form: _Form, force: bool) -> None:
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent}: no such folder; make it first")
    if not os.path.lexists(path):
        return
    if not force:
        raise _exists(path)
    if isinstance(form, _ArchiveForm):
        if not path.is_file():
            raise StoreError(f"{path}: is no file, and isn't replaced by one")
    elif path.is_symlink() or not path.is_dir() or not _holds_bundle(path):
        raise StoreError(f"{path}: holds no bundle, and isn't replaced by one; remove it yourself")


def _holds_bundle(path: Path) -> bool:
    return (path / layout.DESCRIPTION).is_file() or not any(path.iterdir())


def _exists(path: Path) -> StoreError:
    return StoreError(f"{path}: exists already; choose another name, or replace it with --force")


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.partial")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in the same folder, gone afterwards in any case."""
    partial = _partial_name(path)
    try:
        yield partial
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
