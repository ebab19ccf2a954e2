"""The recordings of a real Istio in tests/data, file by file."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

DIRECTORY = Path(__file__).parent / "data" / "istio"


@dataclass(frozen=True)
class RecordedProxy:
    """One proxy of one recording."""

    recording: str
    namespace: str
    pod: str

    def __str__(self) -> str:
        return f"{self.recording}-{self.pod.rsplit('-', 2)[0]}"

    def read(self, name: str) -> bytes:
        return files(self.recording)[f"proxies/{self.namespace}/{self.pod}/{name}"]

    @property
    def captured_at(self) -> datetime:
        return datetime.fromisoformat(json.loads(files(self.recording)["bundle.json"])["captured_at"])


def names() -> tuple[str, ...]:
    return tuple(sorted(path.name.removesuffix(".tar.gz") for path in DIRECTORY.glob("*.tar.gz")))


@cache
def files(recording: str) -> dict[str, bytes]:
    """Every file of a recording, by its path in the bundle."""
    found: dict[str, bytes] = {}
    with tarfile.open(DIRECTORY / f"{recording}.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                found[_in_bundle(member.name, recording)] = stream.read()
    return found


def _in_bundle(path: str, recording: str) -> str:
    return path.removeprefix("./").removeprefix(f"{recording}/")


def proxies() -> tuple[RecordedProxy, ...]:
    found = {
        RecordedProxy(recording, *path.split("/")[1:3])
        for recording in names()
        for path in files(recording)
        if path.startswith("proxies/")
    }
    return tuple(sorted(found, key=lambda proxy: (proxy.recording, proxy.namespace, proxy.pod)))
