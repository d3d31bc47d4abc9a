"""Small tensors of every type and the stores made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tierform.store import PackOptions, pack_tensors
from tierform.store.elements import ELEMENTS, Element

SHAPES = [(), (0,), (3, 0, 2), (7,), (512,), (513, 3)]


def random_codes(element: Element, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bit patterns (so NaN payloads, infinities and denormals are among them) as the type's NumPy array."""
    rng = np.random.default_rng(seed)
    content = rng.integers(0, 256, int(np.prod(shape)) * element.word_bytes, dtype=np.uint8)
    if element.name == "bool":
        content &= 1
    if element.name == "int4":
        content = (content.view(np.int8) >> 4).view(np.uint8)
    return content.view(element.numpy).reshape(shape)


@pytest.fixture(scope="session")
def make_codes():
    return random_codes


@pytest.fixture(scope="session")
def every_type() -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tensors, elements = {}, {}
    for element in ELEMENTS:
        for index, shape in enumerate(SHAPES):
            name = f"{element.name}.{index}"
            tensors[name], elements[name] = random_codes(element, shape, index), element.name
    return tensors, elements


@pytest.fixture
def small_store(tmp_path: Path) -> Path:
    """A store with a bf16 matrix of three chunks, an int8 matrix, a scalar and an attached file."""
    rng = np.random.default_rng(3)
    weights = (rng.standard_normal((150, 512)).astype(np.float32) * 0.02).view(np.uint32) >> 16
    tensors = {
        "layer.weight": weights.astype(np.uint16),
        "layer.q": rng.integers(-128, 128, (40, 100), dtype=np.int8),
        "scale": np.float32(3.25).reshape(()),
    }
    path = tmp_path / "small.tfs"
    options = PackOptions(chunk_blocks=64)
    pack_tensors(tensors, path, options, elements={"layer.weight": "bf16"}, attachments={"config.json": b'{"a": 1}'})
    return path
