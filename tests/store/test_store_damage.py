"""Is a damaged or hostile store refused, with what and where, and never read wrong?"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tierform.store as store
from tierform.errors import TierformError
from tierform.store.checksum import xxh64
from tierform.store.layout import HEADER_BYTES


def make(path: Path, codec: str = "none", layout: str = "plane-major") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    gauss = ((rng.standard_normal((70, 512)).astype(np.float32) * 0.02).view(np.uint32) >> 16).astype(np.uint16)
    tensors = {"w": gauss, "q": rng.integers(-8, 8, (30, 31), dtype=np.int8), "s": np.float32(1.5).reshape(())}
    options = store.PackOptions(codec=codec, layout=layout, chunk_blocks=64, threads=1)  # type: ignore[arg-type]
    store.pack_tensors(
        tensors, path, options, elements={"w": "bf16", "q": "int4"}, attachments={"config.json": b'{"x": 1}\n'}
    )
    return tensors


def read_all(path: Path) -> dict[str, bytes]:
    with store.open(path, threads=1) as opened:
        result = {name: opened.codes(name).tobytes() for name in opened}
        result |= {"@" + name: opened.attachment(name) for name in opened.attachments}
        return result


def verify(path: Path) -> None:
    with store.open(path, threads=1) as opened:
        opened.verify()


@pytest.mark.parametrize("kind", ["none", "zstd", "adjacent"])
def test_any_flipped_bit_is_refused_and_never_read_wrong(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.tfs"
    make(path, *(("none", "adjacent") if kind == "adjacent" else (kind,)))
    good, truth = path.read_bytes(), read_all(path)
    rng = np.random.default_rng(6)
    directory = struct.unpack_from("<Q", good, 24)[0]
    places = [*range(HEADER_BYTES), *rng.integers(directory, len(good), 300).tolist()]
    places += rng.integers(HEADER_BYTES, directory, 250).tolist()
    with store.open(path) as opened:
        for entry in opened.entries.values():  # every index row
            places += rng.integers(entry.rows_offset, entry.rows_offset + entry.row_bytes * 4, 25).tolist()
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(TierformError) as refusal:
            verify(path)
        assert str(path) in str(refusal.value)
        try:
            seen = read_all(path)
        except TierformError:
            continue
        assert seen == truth  # the byte belongs to nothing that is read


def test_where_is_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.tfs"
    make(path)
    with store.open(path) as opened:
        entry = opened.entry("w")
    bad = bytearray(path.read_bytes())
    bad[entry.data_offset + 3 * 4096 + 5] ^= 4  # plane 3 of the first chunk of 64 blocks
    path.write_bytes(bad)
    with store.open(path) as opened:
        opened.codes("w", 3)  # the damage is below the planes that this needs
        with pytest.raises(TierformError, match=rf"byte {entry.data_offset + 3 * 4096}: page 0 of plane 3") as refusal:
            opened.codes("w", 4)
        assert "w:" in str(refusal.value)


@pytest.mark.parametrize("kind", ["none", "zstd"])
def test_any_cut_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.tfs"
    make(path, kind)
    good = path.read_bytes()
    for size in [*range(200), *range(200, len(good), len(good) // 150), *range(len(good) - 100, len(good))]:
        path.write_bytes(good[:size])
        with pytest.raises(TierformError):
            store.open(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(TierformError, match="the file has"):
        store.open(path)


def test_a_file_cut_while_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tfs"
    make(path)
    with store.open(path) as opened:
        with path.open("r+b") as handle:
            handle.truncate(5000)
        with pytest.raises(TierformError, match="changed its size"):
            opened.read("w")


def repaired(content: bytearray) -> bytes:
    """The content with the header's and the directory's checksums made right again."""
    offset, size = struct.unpack_from("<QQ", content, 24)
    if offset + size <= len(content):
        struct.pack_into("<Q", content, 40, xxh64(bytes(content[offset : offset + size])))
    struct.pack_into("<Q", content, 120, xxh64(bytes(content[:120])))
    return bytes(content)


HOSTILE_NUMBERS = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 63, 64, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1, 2**64 - 64])
)


@settings(max_examples=200, deadline=None)
@given(
    where=st.floats(0, 1, exclude_max=True),
    size=st.sampled_from([1, 2, 4, 8]),
    number=HOSTILE_NUMBERS,
    in_header=st.booleans(),
    codec=st.sampled_from(["none", "zstd"]),
)
def test_hostile_numbers_with_right_checksums(tmp_path_factory, where, size, number, in_header, codec) -> None:
    """An attacker who mends the checksums gets a refusal or weights of this file, and no memory beyond its size."""
    import tracemalloc

    path = tmp_path_factory.mktemp("hostile") / "x.tfs"
    make(path, codec)
    content = bytearray(path.read_bytes())
    offset, length = struct.unpack_from("<QQ", content, 24)
    start, span = (8, 112) if in_header else (offset, length)
    place = start + int(where * (span - size)) // size * size
    content[place : place + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    path.write_bytes(repaired(content))
    tracemalloc.start()
    try:
        read_all(path)
        verify(path)
    except TierformError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(content) + 2**20


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_random_bytes_are_refused(tmp_path_factory, content: bytes, with_magic: bool) -> None:
    path = tmp_path_factory.mktemp("noise") / "x.tfs"
    path.write_bytes((b"\x89TFS\r\n\x1a\n" if with_magic else b"") + content)
    with pytest.raises(TierformError):
        store.open(path)


def test_a_hostile_index_row_with_right_checksums(tmp_path: Path) -> None:
    """Offsets that leave the tensor's region, in a row whose checksum is mended, are refused before they are used."""
    for codec in ("none", "zstd"):
        path = tmp_path / f"{codec}.tfs"
        make(path, codec)
        good = path.read_bytes()
        with store.open(path) as opened:
            entry = opened.entry("w")
        for offset, size, coding in [
            (2**63, 64, 0),
            (2**64 - 64, 4096, 0),
            (0, 4096, 0),
            (entry.data_offset + 1, 4096, 0),
            (entry.data_offset, 2**32 - 1, 1),
            (entry.data_offset, 4095, 7),
            (entry.rows_offset, 4096, 0),
        ]:
            content = bytearray(good)
            struct.pack_into("<QII", content, entry.rows_offset, offset, size, coding)
            row = bytes(content[entry.rows_offset : entry.rows_offset + entry.row_bytes])
            old, new = struct.pack("<Q", entry.row_checksums[0]), struct.pack("<Q", xxh64(row))
            content = bytearray(bytes(content).replace(old, new))
            path.write_bytes(repaired(content))
            with store.open(path) as opened, pytest.raises(TierformError, match="does not lie where it can"):
                opened.codes("w", 2)


def test_a_compressed_plane_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "x.tfs"
    make(path, "zstd")
    content = bytearray(path.read_bytes())
    with store.open(path) as opened:
        segments = opened._planes.index(opened.entry("w"), 3).segments
    place = next(one for one in segments[1:3, 0] if one["coding"] == 2)
    bomb = zstandard.ZstdCompressor().compress(bytes(2**26))[: int(place["size"]) - 8]
    bomb = bomb.ljust(int(place["size"]) - 8, b"\0")
    bomb = xxh64(bomb).to_bytes(8, "little") + bomb
    content[int(place["offset"]) : int(place["offset"]) + len(bomb)] = bomb
    path.write_bytes(content)
    with store.open(path) as opened, pytest.raises(TierformError, match="compressed plane"):
        opened.codes("w", 4)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    """Many tensors over one region would make a small file unfold into a large model."""
    path = tmp_path / "x.tfs"
    store.pack_tensors({"a": np.arange(600, dtype=np.int8), "b": np.arange(600, dtype=np.int8)}, path)
    content = bytearray(path.read_bytes())
    with store.open(path) as opened:
        first, second = opened.entry("a"), opened.entry("b")
    at = bytes(content).rindex(struct.pack("<Q", second.data_offset))
    struct.pack_into("<Q", content, at, first.data_offset)
    path.write_bytes(repaired(content))
    with pytest.raises(TierformError, match="overlaps"):
        store.open(path)


def test_a_hostile_file_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tfs"
    store.pack_tensors({}, path, attachments={"aa_config.json": b"{}"})
    for name in (b"../config.json", b"/a_config.json", b"..\\config.json", b"aa_conf\0.json"):
        content = bytearray(path.read_bytes().replace(b"aa_config.json", name.ljust(14, b"x")[:14]))
        (tmp_path / "y.tfs").write_bytes(repaired(content))
        with pytest.raises(TierformError, match=r"file name|control characters"):
            store.open(tmp_path / "y.tfs")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=300), length=st.one_of(st.none(), HOSTILE_NUMBERS))
def test_hostile_safetensors_are_refused(tmp_path_factory, content: bytes, length: int | None) -> None:
    folder = tmp_path_factory.mktemp("st")
    size = len(content) if length is None else length
    (folder / "m.safetensors").write_bytes(size.to_bytes(8, "little") + content)
    if size <= len(content) and content[:size].strip() == b"{}" and size == len(content):
        return
    with pytest.raises(TierformError):
        store.pack_model(folder, folder / "m.tfs")
    assert not (folder / "m.tfs").exists()


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}',
        '{"a":[1,2]}',
        "[]",
        '{"__metadata__":{"a":1}}',
        "[" * 5000 + "]" * 5000,
    ],
)
def test_wrong_safetensors_headers_are_refused(tmp_path: Path, header: str) -> None:
    text = header.encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(TierformError):
        store.pack_model(tmp_path, tmp_path / "m.tfs")
    assert not (tmp_path / "m.tfs").exists()
