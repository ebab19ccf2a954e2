"""An archive can't write, follow, hang or fill anything: what isn't safe is refused with its name."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshscope.model.findings import Unavailable
from meshscope.sources import archive as archive_module
from meshscope.sources.bundle import open_bundle
from meshscope.sources.source import Part, SourceError

NAME = "proxies/shop/cart-1/config_dump.json"
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "gz": gzip.compress,
    "zst": zstandard.compress,
}
compressions = pytest.mark.parametrize("compression", COMPRESSIONS)


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


GOOD = tar(member("bundle.json", b"{}"), member(NAME, b"{}" * 2000))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the test's own: nothing may be left in it, nor have come beside it."""
    place = tmp_path / "around" / "scratch"
    place.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert [path.name for path in (tmp_path / "around").rglob("*")] == ["scratch"]


def refusal(scratch: Path, data: bytes) -> str:
    path = scratch.parent.parent / "hostile"
    path.write_bytes(data)
    with pytest.raises(SourceError) as raised:
        open_bundle(path)
    assert raised.value.exit_code == 2
    assert str(path) in str(raised.value)
    return str(raised.value)


@compressions
@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("../out", {}, "leads out"),
        ("proxies/../../out", {}, "leads out"),
        ("proxies/a/b/..", {}, "leads out"),
        ("/tmp/meshscope-absolute", {}, "absolute"),
        ("//tmp/meshscope-absolute", {}, "absolute"),
        (NAME, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "link"),
        (NAME, {"type": tarfile.LNKTYPE, "linkname": "bundle.json"}, "link"),
        ("golden/x", {"type": tarfile.SYMTYPE, "linkname": "y"}, "link"),
        (NAME, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, "neither"),
        (NAME, {"type": tarfile.BLKTYPE}, "neither"),
        (NAME, {"type": tarfile.FIFOTYPE}, "neither"),
    ],
)
def test_members_that_have_no_business_in_a_bundle(
    scratch: Path, compression: str, name: str, fields: dict[str, Any], why: str
) -> None:
    data = tar(member("bundle.json", b"{}"), member(name, **fields))
    message = refusal(scratch, COMPRESSIONS[compression](data))
    assert "unsafe archive" in message
    assert why in message


def test_a_name_in_an_extended_header_is_judged_as_well(scratch: Path) -> None:
    info, data = member("innocent", b"x", pax_headers={"path": "../../out"})
    assert "leads out" in refusal(scratch, tar((info, data)))


def test_a_member_that_is_there_twice(scratch: Path) -> None:
    assert "twice" in refusal(scratch, tar(member(NAME, b"{}"), member(f"./{NAME}", b"[]")))


@compressions
@pytest.mark.parametrize("cut", [0.3, 0.6, 0.8])
def test_cut_off(scratch: Path, compression: str, cut: float) -> None:
    noise = os.urandom(50_000)
    data = COMPRESSIONS[compression](tar(member("bundle.json", b"{}"), member(NAME, noise)))
    assert "broken" in refusal(scratch, data[: int(len(data) * cut)])


def test_cut_off_between_two_members(scratch: Path) -> None:
    assert "cut off" in refusal(scratch, GOOD[:1024])


def test_a_broken_header_in_the_middle(scratch: Path) -> None:
    assert "broken" in refusal(scratch, GOOD[:1024] + b"\x01" * 512 + GOOD[1536:])


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_not_a_tar_within_the_compression(scratch: Path, compression: str) -> None:
    assert "broken" in refusal(scratch, COMPRESSIONS[compression](b"some text" * 500))
    assert refusal(scratch, COMPRESSIONS[compression](b""))


def zeros(header: bytes, count: int) -> Iterator[bytes]:
    yield header
    for _ in range(count // 2**20):
        yield bytes(2**20)


def bomb(compression: str, header: bytes, size: int) -> bytes:
    buffer = io.BytesIO()
    stream = (
        gzip.GzipFile(fileobj=buffer, mode="wb")
        if compression == "gz"
        else zstandard.ZstdCompressor().stream_writer(buffer, closefd=False)
    )
    with contextlib.closing(stream):
        for chunk in zeros(header, size):
            stream.write(chunk)
    return buffer.getvalue()


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_TOTAL_BYTES", 16 * 2**20)
    monkeypatch.setattr(archive_module, "MAX_FILE_BYTES", 4 * 2**20)
    monkeypatch.setattr(archive_module, "MAX_TRAILING_BYTES", 2**20)
    monkeypatch.setattr(archive_module, "MAX_FILES", 1000)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize(
    ("name", "size", "type_"),
    [
        (NAME, 2**40, tarfile.REGTYPE),  # says what it is
        ("golden/notes", 2**40, tarfile.REGTYPE),  # isn't even kept
        ("x", 2**40, tarfile.XHDTYPE),  # a header that is held in memory whole
        ("x", 2**30, tarfile.GNUTYPE_LONGNAME),
        ("x", 2**40, tarfile.DIRTYPE),
        ("x", 2**40, b"V"),
    ],
)
def test_a_terabyte_of_zeros(scratch: Path, compression: str, name: str, size: int, type_: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, type_
    block = header.tobuf(tarfile.GNU_FORMAT)
    data = bomb(compression, block, 64 * 2**20)
    started = time.monotonic()
    message = refusal(scratch, data)
    assert time.monotonic() - started < 5
    assert any(word in message for word in ("larger", "unsafe", "goes on after"))


@pytest.mark.usefixtures("small_limits")
def test_zeros_after_the_end(scratch: Path) -> None:
    assert "goes on after" in refusal(scratch, bomb("zst", GOOD, 8 * 2**20))


@pytest.mark.usefixtures("small_limits")
def test_many_files_within_the_limit_of_each(scratch: Path) -> None:
    big = bytes(3 * 2**20)
    members = [member(f"proxies/a/p{number}/config_dump.json", big) for number in range(8)]
    assert "16 MiB" in refusal(scratch, gzip.compress(tar(*members)))


def test_a_million_empty_members(scratch: Path) -> None:
    template = tarfile.TarInfo("proxies/a/0000000/stats.txt").tobuf(tarfile.USTAR_FORMAT)
    plain_sum = sum(template[:148]) + sum(template[156:512]) + 8 * 32

    def block(number: int) -> bytes:
        name = b"proxies/a/%07d/stats.txt" % number
        checksum = plain_sum - 7 * ord("0") + sum(b"%07d" % number)
        return name + template[len(name) : 148] + b"%06o\0 " % checksum + template[156:]

    # The reader gives up within the first of ten parts, so the others may be its copies.
    data = 10 * gzip.compress(b"".join(block(number) for number in range(100_001)), 1)
    started = time.monotonic()
    assert "members" in refusal(scratch, data)
    assert time.monotonic() - started < 30


def test_a_sparse_member_counts_as_what_it_unpacks_to(scratch: Path, small_limits: None) -> None:
    header = bytearray(tarfile.TarInfo(NAME).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % 2**33
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "larger" in refusal(scratch, bytes(header) + bytes(1024))


def test_the_window_that_a_frame_asks_for_is_limited(scratch: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=30, enable_ldm=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    stream = compressor.compressobj()
    assert "broken" in refusal(scratch, stream.compress(GOOD) + stream.flush())


def test_parallel_and_concatenated_frames_are_read(tmp_path: Path) -> None:
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"abcd"
    half = len(GOOD) // 2
    path = tmp_path / "b.tar.zst"
    path.write_bytes(skippable + zstandard.compress(GOOD[:half]) + zstandard.compress(GOOD[half:]))
    source = open_bundle(path)
    assert source.read(source.proxies()[0], Part.CONFIG_DUMP) == b"{}" * 2000


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_tar_format(tmp_path: Path, format: int) -> None:
    pod = "p" * 80
    path = tmp_path / "b.tar"
    path.write_bytes(tar(member(f"proxies/{'n' * 60}/{pod}/certs.json", b"{}"), format=format))
    assert [proxy.pod for proxy in open_bundle(path).proxies()] == [pod]


def test_nothing_is_left_of_an_archive_that_was_read(scratch: Path) -> None:
    path = scratch.parent.parent / "good"
    path.write_bytes(GOOD)
    source = open_bundle(path)
    (proxy,) = source.proxies()
    assert source.read(proxy, Part.CONFIG_DUMP) == b"{}" * 2000
    source.close()


def test_hostile_names_stay_names(scratch: Path) -> None:
    path = scratch.parent.parent / "names"
    names = [
        "proxies/\x1b[31m/\u202e/certs.json",
        "proxies/a\\..\\..\\b/c/certs.json",
        "proxies/C:/NUL/certs.json",
    ]
    path.write_bytes(tar(*(member(name, b"{}") for name in names)))
    source = open_bundle(path)
    assert len(source.proxies()) == 3
    assert all(source.read(proxy, Part.CERTS) == b"{}" for proxy in source.proxies())
    source.close()


def opens_or_refuses(path: Path) -> None:
    try:
        source = open_bundle(path)
    except SourceError:
        return
    for proxy in source.proxies():
        for part in Part:
            assert isinstance(source.read(proxy, part), bytes | Unavailable)
    source.kubernetes()
    source.close()


_names = st.lists(
    st.sampled_from(
        ["..", ".", "", "proxies", "a", "kubernetes", "istiod", "bundle.json", "config_dump.json", "x.yaml"]
    )
    | st.text(max_size=6),
    min_size=1,
    max_size=6,
).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    members=st.lists(
        st.tuples(_names, st.binary(max_size=40), st.sampled_from(b"0125346xgLKSV")), max_size=6
    ),
    compression=st.sampled_from(sorted(COMPRESSIONS)),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
)
def test_no_archive_makes_it_fail(
    tmp_path: Path, members: list[tuple[str, bytes, int]], compression: str, damage: list[tuple[int, int]]
) -> None:
    blocks = b""
    for name, content, type_ in members:
        info = tarfile.TarInfo(name.replace("\0", "").encode("utf-8", "replace").decode())
        info.size, info.type = len(content), bytes([type_])
        with contextlib.suppress(ValueError):
            blocks += info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    data = bytearray(COMPRESSIONS[compression](blocks + bytes(1024)))
    for at, value in damage:
        data[at % len(data)] = value
    path = tmp_path / "fuzzed"
    path.write_bytes(bytes(data))
    opens_or_refuses(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(
    data=st.binary(max_size=2000), start=st.sampled_from([b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", GOOD[:1024]])
)
def test_no_bytes_make_it_fail(tmp_path: Path, data: bytes, start: bytes) -> None:
    path = tmp_path / "fuzzed"
    path.write_bytes(start + data)
    opens_or_refuses(path)
