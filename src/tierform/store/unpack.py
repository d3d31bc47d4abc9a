"""Back to ordinary files: a store as one safetensors file at any precision, with the model's small files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.errors import fail
from tierform.files import atomic_path, make_folder
from tierform.store.elements import BLOCK_WEIGHTS
from tierform.store.layout import is_file_name
from tierform.store.safetensors_file import build_header
from tierform.store.to_torch import ModelBits, bits_for
from tierform.store.writer import METADATA_NAME

if TYPE_CHECKING:
    from tierform.store.reader import Fill, Store

PIECE_WEIGHTS = BLOCK_WEIGHTS * 8192


def metadata_of(store: Store) -> dict[str, str]:
    """The safetensors metadata the model was packed with."""
    if METADATA_NAME not in store.attachments:
        return {}
    try:
        found = json.loads(store.attachment(METADATA_NAME))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        fail("the safetensors metadata are not a table of texts", file=str(store.path), key=METADATA_NAME)
    return found


def unpack_store(
    store: Store,
    folder: Path | str,
    bits: ModelBits = None,
    *,
    fill: Fill = "midpoint",
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write ``model.safetensors`` and the attached files into `folder`; the files written.

    Types stay as they are (int4 comes back as int8); `bits` as in :func:`tierform.store.to_torch.bits_for`.
    Nothing that exists is replaced.
    """
    target = Path(folder)
    attached = [name for name in store.attachments if name != METADATA_NAME]
    names = ["model.safetensors", *attached]
    for name in names:
        if not is_file_name(name):
            fail("this file's name could leave the folder", file=str(store.path), key=name)
        if (target / name).exists():
            fail("this file exists already", file=str(target / name), fix="Unpack into an empty folder.")
    depth = {name: bits_for(entry.element, name, bits) for name, entry in store.entries.items()}
    entries = store.entries.values()
    header, _ = build_header(
        ((entry.name, entry.element.safetensors, entry.shape, entry.tensor_bytes) for entry in entries),
        metadata_of(store),
    )
    make_folder(target)
    with atomic_path(target / "model.safetensors") as temporary, temporary.open("wb") as out:
        out.write(header)
        for entry in entries:
            for first in range(0, entry.weights, PIECE_WEIGHTS):
                count = min(PIECE_WEIGHTS, entry.weights - first)
                out.write(store.span(entry.name, first, count, depth[entry.name], fill=fill).tobytes())
                if progress is not None:
                    progress(count * entry.element.word_bytes)
    for name in attached:
        with atomic_path(target / name) as temporary:
            temporary.write_bytes(store.attachment(name))
    return [target / name for name in names]
