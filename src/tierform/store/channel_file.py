"""Nested integers in a store's file: a model folder packed channel by channel, and read back.

Each matrix NAME of the model's layers becomes four tensors of the ordinary format (docs/store-format.md):
``NAME.planes`` (uint8, [group x plane, bytes]: the rows of :class:`tierform.store.nested.ChannelPlanes`),
``NAME.scale`` and ``NAME.offset`` (fp16, [group, output]) and ``NAME.errors`` (fp32, [input, planes + 1]: what the rule
needs).  Everything else (embedding, head, normalizations, biases) is packed as it is, exactly.  The attached file
``channel-planes.json`` says which matrices there are and how large they and their groups are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Array
from tierform.errors import fail
from tierform.store.channel_rule import plane_worth
from tierform.store.nested import LEAST_WORDS, PLANES, WORD, ChannelPlanes, nest, to_planes
from tierform.store.reader import Store
from tierform.store.writer import pack_tensors

FILE_NAME = "channel-planes.json"
SCHEMA = "tierform.channel-planes/1"
_ENDINGS = ("planes", "scale", "offset", "errors")


@dataclass(frozen=True, slots=True)
class ChannelMatrix:
    """A matrix from a store: its planes, and the worth of each channel's planes."""

    planes: ChannelPlanes
    worth: NDArray[np.float32]


def pack_channels(
    model: Path | str, path: Path | str, *, group: int = 64, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Pack a model (folder, GGUF file or a fetched model's name) channel by channel; what was packed, for reports."""
    from tierform.compression.checkpoints.folder import load_network, model_folder
    from tierform.compression.sites import anatomy

    folder = model_folder(model)
    if Path(path).resolve().parent == folder.resolve():
        fail("the store would lie in the model's own folder", key="-o", value=str(path))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    causal = any("CausalLM" in name for name in settings.get("architectures") or ())
    network = load_network(folder, "AutoModelForCausalLM" if causal else "AutoModel")
    sites = {f"{site.name}.weight": site for site in anatomy(network).sites}
    described: dict[str, Any] = {"schema": SCHEMA, "group": group, "matrices": {}}

    def tensors() -> Iterator[tuple[str, Array]]:
        tied = set(getattr(network, "_tied_weights_keys", None) or ())
        tied = tied if getattr(network.config, "tie_word_embeddings", False) else set()
        for name, tensor in network.state_dict().items():
            if name not in sites:
                if name not in tied:
                    yield name, tensor.numpy()
                continue
            if progress is not None:
                progress(name)
            exact = sites[name].matrix.numpy()
            nested = nest(exact, group)
            planes = to_planes(nested)
            described["matrices"][name] = list(nested.shape)
            groups = planes.words.shape[0]
            yield f"{name}.planes", planes.words.view(np.uint8).reshape(groups * PLANES, -1)
            yield f"{name}.scale", nested.scale.astype(np.float16)
            yield f"{name}.offset", nested.offset.astype(np.float16)
            yield f"{name}.errors", nested.channel_errors(exact)

    attached = {
        one.name: one.read_bytes()
        for one in sorted(folder.iterdir())
        if one.suffix in (".json", ".txt", ".jinja") and one.name != FILE_NAME and not one.name.endswith(".index.json")
    }
    content = list(tensors())
    attached[FILE_NAME] = json.dumps(described, indent=1).encode()
    pack_tensors(content, path, attachments=attached)
    return described


def description(store: Store) -> dict[str, Any]:
    """What a store holds channel by channel; TierformError when it holds nothing so."""
    if FILE_NAME not in store.attachments:
        fail(
            "the store does not hold nested integers",
            file=str(store.path),
            fix="Make one with: tierform store nest MODEL -o FILE",
        )
    try:
        found = json.loads(store.attachment(FILE_NAME))
        matrices = found["matrices"]
        group = found["group"]
        right = found["schema"] == SCHEMA and isinstance(group, int) and group >= 8
        for name, shape in matrices.items():
            right &= len(shape) == 2 and all(type(one) is int and one > 0 for one in shape)
            right &= all(f"{name}.{ending}" in store.entries for ending in _ENDINGS)
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        fail("the list of matrices is damaged", file=str(store.path), key=FILE_NAME)
    return dict(found)


def read_channels(store: Store, name: str, group: int, shape: tuple[int, int]) -> ChannelMatrix:
    """One matrix; TierformError when its tensors do not fit its shape."""
    outputs, inputs = shape
    groups, words = -(-inputs // group), max(LEAST_WORDS, -(-outputs // WORD))
    expected = {
        "planes": (groups * PLANES, group * words * 8),
        "scale": (groups, outputs),
        "offset": (groups, outputs),
        "errors": (inputs, PLANES + 1),
    }
    for ending, wanted in expected.items():
        found = store.entries[f"{name}.{ending}"].shape
        if found != wanted:
            fail(f"the shape {wanted} is needed", file=str(store.path), key=f"{name}.{ending}", value=found)
    content = np.ascontiguousarray(store.read(f"{name}.planes"))
    padded = np.zeros((2, groups, words * WORD), np.float32)
    for number, ending in enumerate(("scale", "offset")):
        padded[number, :, :outputs] = store.read(f"{name}.{ending}")
    planes = ChannelPlanes(
        content.view(np.uint64).reshape(groups, PLANES, group, words), padded[0], padded[1], group, outputs, inputs
    )
    return ChannelMatrix(planes, plane_worth(np.asarray(store.read(f"{name}.errors"))))


def read_all(store: Store) -> dict[str, ChannelMatrix]:
    """Every matrix by the name of its weight."""
    found = description(store)
    return {
        name: read_channels(store, name, found["group"], (shape[0], shape[1]))
        for name, shape in found["matrices"].items()
    }
