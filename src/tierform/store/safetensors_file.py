"""Reading and writing the safetensors layout without loading it: one length, one JSON header, then the tensors' bytes.

The reader maps the file and hands out byte ranges, so files larger than memory stream through.  A header is checked
in full (types, shapes, sizes, no overlap, no gap, nothing past the end) before anything is handed out.
Source: the safetensors format description (Hugging Face, format of version 0.4 and later).
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierform.errors import TierformError, fail, first_line
from tierform.store.elements import BY_SAFETENSORS, Element
from tierform.store.links import followed

MAX_HEADER_BYTES = 100_000_000
MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor of a safetensors file: its bytes are ``start`` to ``end`` of the mapped file."""

    name: str
    element: Element
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """A safetensors file, mapped read-only."""

    def __init__(self, path: Path | str) -> None:
        """Map `path` and check its header; TierformError with what is wrong."""
        self.path = Path(path)
        try:
            self._handle = self.path.open("rb")
        except OSError as error:
            fail(f"the file cannot be read: {error.strerror or error}", file=str(path))
        try:
            size = self._handle.seek(0, 2)
            if size < 8:
                fail("the file is too short for a safetensors header", file=str(path))
            self.map = mmap.mmap(self._handle.fileno(), 0, access=mmap.ACCESS_READ)
            length = int.from_bytes(self.map[:8], "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                fail("this is not a safetensors file: its header does not fit in it", file=str(path), value=length)
            self.metadata, self.tensors = parse_header(self.map[8 : 8 + length], 8 + length, size, str(path))
        except BaseException:
            self._handle.close()
            raise

    def content(self, source: Source) -> memoryview:
        """The bytes of one tensor, mapped, not copied."""
        return memoryview(self.map)[source.start : source.end]

    def close(self) -> None:
        """Unmap the file, at once or when the last view of it is gone."""
        with contextlib.suppress(BufferError):
            self.map.close()
        self._handle.close()


def parse_header(content: bytes, base: int, size: int, file: str) -> tuple[dict[str, str], list[Source]]:
    """The metadata and the tensors of a header whose tensors' bytes begin at `base` in a file of `size` bytes."""
    try:
        header = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        fail(f"the safetensors header is not valid JSON: {first_line(error)}", file=file)
    if not isinstance(header, dict):
        fail("the safetensors header is not a table of tensors", file=file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        fail("the metadata of the header must be texts", file=file)
    tensors = [_source(name, item, base, size, file) for name, item in header.items()]
    end = base
    for source in sorted(tensors, key=lambda one: (one.start, one.end)):
        if source.start != end:
            fail("the tensors overlap or leave gaps", file=file, key=source.name, value=source.start - base)
        end = source.end
    if end != size:
        fail(f"the file has {size} bytes, its tensors end at {end}", file=file, fix="It may have been cut short.")
    return metadata, tensors


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _source(name: str, item: Any, base: int, size: int, file: str) -> Source:
    try:
        kind, shape, (start, end) = item["dtype"], item["shape"], item["data_offsets"]
        numbers = [start, end, *shape]
        if len(item) != 3 or any(type(number) is not int or number < 0 for number in numbers) or len(shape) > MAX_RANK:
            raise ValueError
    except (TypeError, KeyError, ValueError):
        fail("this tensor's entry is malformed", file=file, key=name)
    if kind not in BY_SAFETENSORS:
        fail("this element type is not supported", file=file, key=name, value=kind, choices=BY_SAFETENSORS)
    element = BY_SAFETENSORS[kind]
    if end > size - base or end - start != math.prod(shape) * element.word_bytes:
        fail("the shape and the byte range do not agree", file=file, key=name, value=(shape, start, end))
    return Source(name, element, tuple(shape), base + start, base + end)


def find_files(model: Path | str) -> list[Path]:
    """The safetensors files of a model folder (or the file itself), in order of name."""
    path = Path(model)
    if path.is_file():
        return [path]
    if not path.is_dir():
        fail("no such file or folder", key="MODEL_DIR", value=str(path))
    files = sorted(path.glob("*.safetensors"))
    if not files:
        others = [other.name for other in path.iterdir() if other.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        hint = f"{others[0]} is a pickle, which is never opened. " if others else ""
        fail("no safetensors file in this folder", file=str(path), fix=hint + "Save the model as safetensors first.")
    return [followed(file, path) for file in files]


def plain_model(model: Path | str) -> Path:
    """The model as files of safetensors: as given, or the converted twin of a GGUF file or a quantized folder."""
    from tierform.gguf import is_gguf

    if is_gguf(model):
        from tierform.compression.checkpoints.folder import model_folder

        return model_folder(model)
    settings = Path(model) / "config.json"
    if not settings.is_file() or b"quantization_config" not in settings.read_bytes():
        return Path(model)
    from tierform.compression.checkpoints.folder import plain_folder

    return plain_folder(Path(model))


def open_model(model: Path | str) -> list[SafetensorsFile]:
    """All files of a model, open; a tensor name that stands in two of them is refused."""
    model = plain_model(model)
    opened: list[SafetensorsFile] = []
    seen: dict[str, Path] = {}
    try:
        for path in find_files(model):
            opened.append(SafetensorsFile(path))
            for source in opened[-1].tensors:
                if source.name in seen:
                    fail(f"this tensor is in {seen[source.name].name} too", file=str(path), key=source.name)
                seen[source.name] = path
    except TierformError:
        for one in opened:
            one.close()
        raise
    return opened


def build_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The first bytes of a safetensors file with `tensors` (name, type, shape, bytes), and each one's file range."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    ranges: dict[str, tuple[int, int]] = {}
    at = 0
    for name, kind, shape, size in tensors:
        table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        ranges[name] = (at, at + size)
        at += size
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: (base + a, base + b) for name, (a, b) in ranges.items()}
