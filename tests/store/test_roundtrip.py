"""Does everything come back bit for bit, and only what was asked for get read?"""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tierform.store as store
from tierform.errors import TierformError
from tierform.store.elements import ELEMENTS, to_values

OPTIONS = [
    store.PackOptions(),
    store.PackOptions(layout="adjacent"),
    store.PackOptions(codec="zstd"),
    store.PackOptions(chunk_blocks=64, threads=1),
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "adjacent", "zstd", "small chunks"])
def test_every_type_and_shape_is_bit_exact(tmp_path: Path, every_type, options: store.PackOptions) -> None:
    tensors, elements = every_type
    path = tmp_path / "all.tfs"
    store.pack_tensors(tensors, path, options, elements=elements)
    with store.open(path) as opened:
        assert opened.keys() == list(tensors)
        for name, given_array in tensors.items():
            codes = opened.codes(name)
            assert codes.shape == given_array.shape
            assert codes.tobytes() == given_array.tobytes()
            assert opened.entry(name).element.name == elements[name]
        assert opened.verify() > len(tensors)


@settings(max_examples=25, deadline=None)
@given(
    element=st.sampled_from(ELEMENTS),
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    seed=st.integers(0, 2**31),
    options=st.sampled_from(OPTIONS),
)
def test_any_shape_is_bit_exact(tmp_path_factory, make_codes, element, shape, seed, options) -> None:
    path = tmp_path_factory.mktemp("any") / "one.tfs"
    array = make_codes(element, shape, seed)
    store.pack_tensors({"x": array}, path, options, elements={"x": element.name})
    with store.open(path) as opened:
        assert opened.codes("x").tobytes() == array.tobytes()
        opened.verify()


def test_a_model_folder_comes_back_with_its_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from tierform.store.unpack import unpack_store

    model = tmp_path / "model"
    model.mkdir()
    generator = torch.Generator().manual_seed(0)
    first = {"a": torch.randn(33, 65, generator=generator).bfloat16(), "n": torch.tensor([float("nan"), -0.0, 1e-40])}
    second = {"e4": torch.randn(9, 9, generator=generator).to(torch.float8_e4m3fn), "empty": torch.zeros(0, 4)}
    second |= {"ids": torch.arange(11), "q": torch.randint(-8, 8, (16, 16), dtype=torch.int8, generator=generator)}
    safetensors.save_file(first, model / "model-00001.safetensors", {"format": "pt"})
    safetensors.save_file(second, model / "model-00002.safetensors")
    (model / "config.json").write_text('{"model_type": "none"}')
    path = tmp_path / "m.tfs"
    done: list[int] = []
    store.pack_model(model, path, int4=["q"], progress=done.append)
    assert sum(done) == sum(one.numel() * one.element_size() for one in (first | second).values())
    with store.open(path) as opened:
        assert opened.entry("q").element.name == "int4"
        unpack_store(opened, tmp_path / "out")
    back = safetensors.load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in (first | second).items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert back[name].view(torch.uint8).equal(tensor.view(torch.uint8)) if tensor.numel() else True
    assert (tmp_path / "out" / "config.json").read_text() == '{"model_type": "none"}'


@pytest.mark.parametrize("bits", range(1, 17))
def test_k_planes_cost_k_sixteenths_and_one_percent(tmp_path: Path, bits: int) -> None:
    weights = np.random.default_rng(0).integers(0, 2**16, 2**21, dtype=np.uint16)
    path = tmp_path / "big.tfs"
    store.pack_tensors({"w": weights}, path, elements={"w": "bf16"})
    with store.open(path) as opened:
        codes = opened.codes("w", bits, fill="truncate")
        mask = 0xFFFF << (16 - bits) & 0xFFFF
        assert (codes == weights & mask).all()
        share = weights.nbytes * bits / 16
        assert share <= opened.count.planes_B + opened.count.index_B <= 1.01 * share


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux page cache")
def test_only_the_pages_of_the_asked_planes_are_brought_in(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).integers(0, 2**16, 2**22, dtype=np.uint16)
    path = tmp_path / "big.tfs"
    store.pack_tensors({"w": weights}, path, elements={"w": "bf16"})
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = _resident(path)
        if before > 0:
            pytest.skip("this file system keeps pages")
        with store.open(path) as opened:
            opened.codes("w", 4)
        pages = path.stat().st_size / mmap.PAGESIZE
        assert pages * 4 / 16 * 0.99 < _resident(path) < pages * 4 / 16 * 1.03 + 8


def _resident(path: Path) -> int:
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        held = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        pages = -(-len(mapped) // mmap.PAGESIZE)
        seen = (ctypes.c_ubyte * pages)()
        assert library.mincore(ctypes.c_void_p(ctypes.addressof(held)), ctypes.c_size_t(len(mapped)), seen) == 0
        del held
        return sum(one & 1 for one in seen)


def test_rows_and_reused_memory(small_store: Path) -> None:
    with store.open(small_store) as opened:
        whole = opened.codes("layer.weight")
        np.testing.assert_array_equal(opened.codes("layer.weight", rows=(70, 131)), whole[70:131])
        np.testing.assert_array_equal(opened.codes("layer.q", rows=(3, 4)), opened.codes("layer.q")[3:4])
        assert opened.codes("layer.q", rows=(5, 5)).shape == (0, 100)
        scratch = np.zeros(150 * 128, np.uint64)
        again = opened.codes("layer.weight", out=scratch)
        assert np.shares_memory(again, scratch)
        np.testing.assert_array_equal(again, whole)
        for wrong in ((-1, 3), (3, 151), (5, 4)):
            with pytest.raises(TierformError, match="no such rows"):
                opened.read("layer.weight", rows=wrong)
        with pytest.raises(TierformError, match="no such rows"):
            opened.read("scale", rows=(0, 1))


def test_compression_of_gaussian_bf16_is_near_a_quarter(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = ((rng.standard_normal(2**20, dtype=np.float32) * 0.02).view(np.uint32) >> 16).astype(np.uint16)
    path = tmp_path / "gauss.tfs"
    store.pack_tensors({"w": weights}, path, store.PackOptions(codec="zstd"), elements={"w": "bf16"})
    with store.open(path) as opened:
        saved = 1 - path.stat().st_size / weights.nbytes
        assert 0.24 <= saved <= 0.27
        opened.codes("w", 6)
        assert opened.count.planes_B < 6 / 16 * weights.nbytes * 0.6  # sign, and five exponent planes that compress
        np.testing.assert_array_equal(opened.codes("w"), weights)


def test_values_of_types_that_numpy_lacks() -> None:
    torch = pytest.importorskip("torch")
    for element in ELEMENTS:
        if element.name not in ("bf16", "fp8-e4m3", "fp8-e5m2"):
            continue
        codes = np.arange(2**element.width, dtype=element.numpy)
        expected = torch.from_numpy(codes.view(f"i{element.word_bytes}")).view(getattr(torch, element.torch)).float()
        np.testing.assert_array_equal(to_values(element, codes), expected.numpy())


def test_names_are_helped_and_closed_stores_say_so(small_store: Path) -> None:
    opened = store.open(small_store)
    with pytest.raises(TierformError, match=r"did you mean 'layer\.weight'"):
        opened["layer.wieght"]
    with pytest.raises(TierformError, match="no such attached file"):
        opened.attachment("passwd")
    assert opened.attachment("config.json") == b'{"a": 1}'
    assert opened["scale"].numpy() == 3.25
    assert opened["layer.q", 8].dtype == np.int8
    opened.close()
    with pytest.raises(TierformError, match="closed"):
        opened.read("scale")


def test_packing_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    path = tmp_path / "x.tfs"
    cases = [
        ({"x": np.zeros(3, np.complex64)}, None, {}, "not supported"),
        ({"x": np.full(3, 9, np.int8)}, None, {"x": "int4"}, "-8 to 7"),
        ({"x": np.zeros(3, np.float32)}, None, {"x": "bf16"}, "given as uint16"),
        ({"": np.zeros(3, np.int8)}, None, {}, "name of 1 to"),
        ({"a\nb": np.zeros(3, np.int8)}, None, {}, "control characters"),
        ({"x": np.zeros(3, np.int8)}, store.PackOptions(layout="adjacent", codec="zstd"), {}, "cannot be compressed"),
        ({"x": np.zeros(3, np.int8)}, store.PackOptions(chunk_blocks=65), {}, "multiple of 64"),
        ({"x": np.zeros(3, np.int8)}, store.PackOptions(threads=0), {}, "thread"),
    ]
    for tensors, options, elements, message in cases:
        with pytest.raises(TierformError, match=message):
            store.pack_tensors(tensors, path, options, elements=elements)
        assert not path.exists() and not list(tmp_path.iterdir())
    for name in ("../x", "a/b", "..", ".hidden", "a\\b", "x" * 300, "C:x"):
        with pytest.raises(TierformError, match="plain file name"):
            store.pack_tensors({}, path, attachments={name: b""})
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(TierformError, match="pickle"):
        store.pack_model(tmp_path, path)


def test_an_interrupted_pack_leaves_the_old_file(tmp_path: Path, small_store: Path) -> None:
    before = small_store.read_bytes()

    def endless():
        yield "a", np.zeros(600, np.float16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pack_tensors(endless(), small_store)
    assert small_store.read_bytes() == before
    assert [one.name for one in small_store.parent.iterdir()] == [small_store.name]
