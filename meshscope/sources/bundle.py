"""Reads a bundle, a directory or an archive of one, as the source it was captured from."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject
from meshscope.model.names import ObjectRef, ProxyId
from meshscope.sources import layout
from meshscope.sources.archive import Archive
from meshscope.sources.files import Directory, Files
from meshscope.sources.kubernetes_documents import decode
from meshscope.sources.source import Capture, Part, Read, SourceError

SCHEMA = 1


def open_bundle(path: Path) -> BundleSource:
    """The bundle at `path`. Raises SourceError (exit code 2) where there is none or it isn't safe to read."""
    try:
        files = _files(path)
    except OSError as error:
        raise SourceError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        return BundleSource(files, path)
    except BaseException:
        files.close()
        raise


def _files(path: Path) -> Files:
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return Archive(path)
    if path.exists():
        raise SourceError(f"{path}: not a bundle: it is neither a directory nor a file")
    raise SourceError(f"{path}: no such bundle")


def _directory(path: Path) -> Files:
    """The bundle in a directory, or in the only folder within it (where an archive was unpacked)."""
    files = Directory(path)
    if files.paths:
        return files
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]
    return Directory(folders[0]) if len(folders) == 1 else files


class BundleSource:
    """A source that answers from a bundle's files. Safe to read from several threads."""

    def __init__(self, files: Files, path: Path) -> None:
        if not files.paths:
            wanted = ", ".join(f"{folder}/" for folder in sorted(layout.FOLDERS))
            raise SourceError(
                f"{path}: not a bundle: it has neither {layout.DESCRIPTION} nor any of {wanted}"
            )
        self._files = files
        self._proxies = tuple(sorted({found for name in files.paths if (found := layout.proxy_of(name))}))
        described, problems = _describe(files, path)
        self.capture: Capture = described
        self.problems: tuple[Unavailable, ...] = (*files.problems, *problems)
        """What is there and couldn't be taken, or had to be guessed."""

    def proxies(self) -> tuple[ProxyId, ...]:
        return self._proxies

    def read(self, proxy: ProxyId, part: Part) -> bytes | Unavailable:
        return self._files.read(layout.part_path(proxy, part))

    def kubernetes(self) -> Read | Unavailable:
        return read_kubernetes(self._files)

    def control_planes(self) -> tuple[str, ...]:
        return tuple(sorted({pod for name in self._files.paths if (pod := layout.control_plane_of(name))}))

    def read_control_plane(self, pod: str, path: str) -> bytes | Unavailable:
        return self._files.read(layout.istiod_path(pod, path))

    def close(self) -> None:
        self._files.close()


def read_kubernetes(files: Files) -> Read | Unavailable:
    """All objects below kubernetes/, each once: of two readings of an object the newer one."""
    names = [name for name in files.paths if layout.is_kubernetes(name)]
    if not names:
        return Unavailable(
            "Kubernetes objects", "there is none in the bundle", "capture again, with the right to list them"
        )
    objects: dict[ObjectRef, KubernetesObject] = {}
    problems: list[Unavailable] = []
    for name in names:
        data = files.read(name)
        if isinstance(data, Unavailable):
            problems.append(data)
            continue
        read = decode(data, name)
        problems.extend(read.problems)
        for found in read.objects:
            known = objects.get(found.ref)
            if known is None or _version(found) > _version(known):
                objects[found.ref] = found
    return Read(tuple(objects.values()), tuple(problems))


def _version(found: KubernetesObject) -> int:
    """The resource version, which grows with every change; 0 where it isn't a number."""
    metadata = found.body["metadata"]
    version = str(metadata.get("resourceVersion", ""))
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 else 0


# --- bundle.json --------------------------------------------------------------------------------------------


class _Description(msgspec.Struct):
    schema: int = SCHEMA
    captured_at: Any = None
    cluster: str = ""
    meshes: tuple[str, ...] = ()
    samples: dict[str, Any] = {}


_REMEDY = f"mend {layout.DESCRIPTION} or capture again"


def _describe(files: Files, path: Path) -> tuple[Capture, tuple[Unavailable, ...]]:
    problems: list[Unavailable] = []
    description = _Description()
    data = files.read(layout.DESCRIPTION)
    if isinstance(data, Unavailable):
        problems.append(data)
    else:
        try:
            description = msgspec.json.decode(data, type=_Description)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            problems.append(Unavailable(layout.DESCRIPTION, f"it can't be read: {error}", _REMEDY))
    if description.schema > SCHEMA:
        raise SourceError(
            f"{path}: a bundle of schema {description.schema}, newer than this meshscope; update meshscope"
        )
    captured_at = _time(description.captured_at)
    if captured_at is None:
        captured_at, hint = _newest(files, path)
        problems.append(
            Unavailable(
                "when the bundle was captured",
                f"{layout.DESCRIPTION} has no captured_at that can be read; "
                f"taken for {captured_at:%Y-%m-%dT%H:%M:%SZ}, {hint}",
                _REMEDY,
            )
        )
    samples = {name: at for name, text in description.samples.items() if (at := _time(text))}
    return Capture(captured_at, description.cluster, description.meshes, samples), tuple(problems)


_TIME = Annotated[datetime, msgspec.Meta(tz=True)]
_LINE_TIME = re.compile(
    rb'(?:^\[?|"start_time":\s*")(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)', re.MULTILINE
)
_TAIL_BYTES = 64 * 1024


def _time(text: Any) -> datetime | None:
    """An RFC 3339 time in UTC; None where it is none."""
    try:
        return msgspec.convert(text, type=_TIME).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def _newest(files: Files, path: Path) -> tuple[datetime, str]:
    """The newest hint at the time of capture, and what it is: a log's line, else a file's own time."""
    now = datetime.now(UTC)
    times = [time for time in _log_times(files) if time <= now]
    if times:
        return max(times), "the time of the newest log line"
    stamps = [stamp for name in files.paths if 0 < (stamp := files.modified(name)) <= now.timestamp()]
    stamp = max(stamps, default=0.0) or path.stat().st_mtime
    return datetime.fromtimestamp(stamp, UTC), "the time of the newest file"


def _log_times(files: Files) -> list[datetime]:
    times: list[datetime] = []
    for name in files.paths:
        if name.endswith(f"/{Part.LOG.value}") and isinstance(log := files.read(name), bytes):
            found = _LINE_TIME.findall(log[-_TAIL_BYTES:])
            times.extend(time for text in found[-100:] if (time := _time(text.decode("ascii"))))
    return times
