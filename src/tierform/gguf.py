"""GGUF files: what they say about a model, and where each of its tensors lies.

A GGUF file is one file with a table of keys and values (architecture, sizes, tokenizer), a table of tensors (name,
shape, block format, place) and the tensors' bytes.  Everything is little-endian.  This module reads the two tables and
turns the keys into a Hugging Face configuration; the blocks are decoded in
:mod:`tierform.compression.checkpoints.gguf_blocks`.

Nothing a file says is believed before it was checked against the file's own size.  Limits: versions 2 and 3; the
architectures of :data:`ARCHITECTURES`; single files.
Source: the GGUF specification of the ggml project (version 3).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tierform.errors import fail

MAGIC = b"GGUF"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_ENTRIES, _MAX_DEPTH, _MAX_RANK = 1 << 20, 4, 4


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """A tensor's coding: `weights` weights in `size_B` bytes."""

    name: str
    weights: int
    size_B: int


# The type numbers of the specification that are known here.  Those of NOT_DECODED are only sizes: a simulation needs no
# more.
FORMATS = {
    0: BlockFormat("F32", 1, 4),
    1: BlockFormat("F16", 1, 2),
    2: BlockFormat("Q4_0", 32, 18),
    3: BlockFormat("Q4_1", 32, 20),
    8: BlockFormat("Q8_0", 32, 34),
    10: BlockFormat("Q2_K", 256, 84),
    11: BlockFormat("Q3_K", 256, 110),
    12: BlockFormat("Q4_K", 256, 144),
    13: BlockFormat("Q5_K", 256, 176),
    14: BlockFormat("Q6_K", 256, 210),
    30: BlockFormat("BF16", 1, 2),
}
NOT_DECODED = ("Q2_K", "Q3_K", "Q5_K")


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor: its shape with the outermost axis first, its format, and its first byte in the file."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    offset: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def size_B(self) -> int:
        """Bytes in the file."""
        return self.weights // self.format.weights * self.format.size_B


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a GGUF architecture is called elsewhere, and whether its q and k rows are interleaved in the file.

    Rows of q and k of the architectures that rotate neighbouring pairs are stored pair by pair; Hugging Face's models
    rotate the two halves of a head, so the rows are put back.
    """

    model_type: str
    model_class: str
    interleaved: bool


ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", False),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", False),
}


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The two tables of a file, by name."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @property
    def architecture(self) -> Architecture:
        """The architecture; TierformError with the nearest when it is not known here."""
        name = self.values.get("general.architecture")
        if name not in ARCHITECTURES:
            fail(
                "this architecture of GGUF files is not read",
                file=str(self.path),
                key="general.architecture",
                value=name,
                choices=ARCHITECTURES,
                fix=f"Known: {', '.join(ARCHITECTURES)}.",
            )
        return ARCHITECTURES[name]

    def number(self, key: str, default: float | None = None) -> Any:
        """A value of the architecture's own keys; TierformError when it is missing and there is no default."""
        full = f"{self.values.get('general.architecture')}.{key}"
        found = self.values.get(full, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            fail("the file does not say this", file=str(self.path), key=full, value=found)
        return found

    def config(self) -> dict[str, Any]:
        """The model's configuration with Hugging Face's keys, as ``config.json`` would hold it."""
        kind = self.architecture
        for key, what in ((self.number("expert_count", 0), "experts"), (self.values.get("split.count", 1), "parts")):
            if isinstance(key, int) and key > 1:
                fail(f"only whole files of dense decoders are read; this one has {key} {what}", file=str(self.path))
        heads, hidden = self.number("attention.head_count"), self.number("embedding_length")
        tokens = self.values.get("tokenizer.ggml.tokens")
        width = self.number("attention.key_length", self.number("rope.dimension_count", hidden // max(heads, 1)))
        vocabulary = self.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in self.tensors else None
        result: dict[str, object] = {
            "architectures": [kind.model_class],
            "model_type": kind.model_type,
            "hidden_size": hidden,
            "intermediate_size": self.number("feed_forward_length"),
            "num_hidden_layers": self.number("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.number("attention.head_count_kv", heads),
            "head_dim": width,
            "max_position_embeddings": self.number("context_length"),
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon", 1e-6),
            "rope_theta": self.number("rope.freq_base", 10000.0),
            "vocab_size": vocabulary or self.number("vocab_size", len(tokens or ())),
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "hidden_act": "silu",
            "attention_bias": "blk.0.attn_q.bias" in self.tensors,
        }
        for name in ("bos", "eos", "pad"):
            key = "padding" if name == "pad" else name
            found = self.values.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(found, int):
                result[f"{name}_token_id"] = found
        return result


def is_gguf(path: Path | str) -> bool:
    """Whether a path is a GGUF file, by its first bytes."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_gguf(path: Path | str) -> GGUFFile:
    """The tables of a file; every refusal is a TierformError with the byte at which the file is wrong."""
    path = Path(path)
    with _mapped(path) as content:
        return _Reader(content, path).read()


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    try:
        with path.open("rb") as file:
            if path.stat().st_size < 24:
                fail("this is not a GGUF file", file=str(path), value=file.read(4))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content
    except OSError as error:
        fail(f"the file cannot be read: {error.strerror or error}", file=str(path))


class _Reader:
    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content, self.path, self.at = content, path, 0

    def bad(self, what: str, value: object = None) -> NoReturn:
        fail(f"byte {self.at}: {what}", file=str(self.path), value=value, fix="The file is damaged or incomplete.")

    def take(self, form: str) -> Any:
        size = struct.calcsize(form)
        if self.at + size > len(self.content):
            self.bad("the file ends inside its tables")
        (value,) = struct.unpack_from(form, self.content, self.at)
        self.at += size
        return value

    def count(self, what: str, most: int = _MAX_ENTRIES) -> int:
        found: int = self.take("<Q")
        if found > most:
            self.at -= 8
            self.bad(f"an impossible number of {what}", found)
        return found

    def text(self) -> str:
        size = self.count("letters", len(self.content))
        if self.at + size > len(self.content):
            self.bad("a text leaves the file", size)
        raw = self.content[self.at : self.at + size]
        self.at += size
        try:
            return str(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self.bad("a text is not UTF-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or depth >= _MAX_DEPTH:
            self.bad("a value of unknown kind", kind)
        inner = self.take("<I")
        size = self.count("values", len(self.content))
        if inner in _SCALARS:
            form = f"<{size}{_SCALARS[inner][1]}"
            if self.at + struct.calcsize(form) > len(self.content):
                self.bad("an array leaves the file", size)
            found = list(struct.unpack_from(form, self.content, self.at))
            self.at += struct.calcsize(form)
            return found
        return [self.value(inner, depth + 1) for _ in range(size)]

    def read(self) -> GGUFFile:
        if self.content[:4] != MAGIC:
            fail("this is not a GGUF file", file=str(self.path), value=bytes(self.content[:4]))
        self.at = 4
        version = self.take("<I")
        if version not in (2, 3):
            fail("GGUF versions 2 and 3 are read", file=str(self.path), value=version)
        tensors, keys = self.count("tensors"), self.count("keys")
        values: dict[str, Any] = {}
        for _ in range(keys):
            name = self.text()
            if name in values:
                self.bad("a key stands twice", name)
            values[name] = self.value(self.take("<I"))
        places = [self._place() for _ in range(tensors)]
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self.bad("the alignment is not a power of two", alignment)
        begin = -(-self.at // alignment) * alignment
        found: dict[str, GGUFTensor] = {}
        for name, shape, form, offset in places:
            tensor = GGUFTensor(name, shape, form, begin + offset)
            if name in found:
                self.bad("a tensor stands twice", name)
            if tensor.offset % alignment or tensor.offset + tensor.size_B > len(self.content):
                self.bad(f"the tensor {name!r} does not lie inside the file", tensor.offset)
            found[name] = tensor
        return GGUFFile(self.path, values, found)

    def _place(self) -> tuple[str, tuple[int, ...], BlockFormat, int]:
        name, rank = self.text(), self.take("<I")
        if not name or rank > _MAX_RANK:
            self.bad("a tensor has no name or too many axes", (name, rank))
        shape = tuple(self.take("<Q") for _ in range(rank))[::-1]
        number = self.take("<I")
        form = FORMATS.get(number)
        if form is None:
            known = ", ".join(one.name for one in FORMATS.values())
            fail(
                f"the tensor has a block format that is not known (number {number})",
                file=str(self.path),
                key=name,
                fix=f"Known: {known}.",
            )
        if shape and shape[-1] % form.weights:
            self.bad(f"rows of {name!r} are no whole blocks of {form.name}", shape)
        if math.prod(shape) > 1 << 40:
            self.bad(f"{name!r} is impossibly large", shape)
        return name, shape, form, self.take("<Q")
