"""Codes as torch tensors, a lazy mapping like a state dict, and whole Hugging Face models at any precision.

Nothing here runs code from the store: a model's class is taken from the installed transformers library by the name its
configuration gives, and weights are only ever arrays.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierform.arrays import Array
from tierform.errors import MissingDependency, fail
from tierform.store.elements import Element

if TYPE_CHECKING:
    import torch

    from tierform.store.reader import Fill, Store

ModelBits = int | Mapping[str, int] | None


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingDependency("torch", "reading tensors into torch", "train") from None
    return torch


def from_codes(element: Element, codes: Array) -> torch.Tensor:
    """A tensor of the element's own type over the codes' memory."""
    library = _torch()
    signed = library.from_numpy(codes.view(f"i{element.word_bytes}"))
    result: torch.Tensor = signed.view(getattr(library, element.torch))
    return result


def bits_for(element: Element, name: str, bits: ModelBits) -> int:
    """The precision of one tensor when a whole model is read.

    An int is an upper limit: element types with fewer planes, and exact types, are read whole.  A mapping has name
    patterns; the first that fits counts and is not limited, so it must be possible; others are read whole.
    """
    if bits is None:
        return element.planes
    if isinstance(bits, Mapping):
        for pattern, each in bits.items():
            if fnmatch.fnmatchcase(name, pattern):
                return element.check_bits(each, name)
        return element.planes
    if isinstance(bits, bool) or bits < 1:
        fail("a model is read at 1 bit or more", key="bits", value=bits)
    return min(bits, element.planes) if element.partial else element.planes


class LazyStateDict(Mapping[str, "torch.Tensor"]):
    """The store's tensors at a precision, each read when it is looked up and not kept."""

    def __init__(self, store: Store, bits: ModelBits = None, fill: Fill = "midpoint") -> None:
        """`bits` as in :func:`bits_for`; impossible precisions are refused here."""
        self._store, self._fill = store, fill
        self.bits = {name: bits_for(entry.element, name, bits) for name, entry in store.entries.items()}
        if isinstance(bits, Mapping):
            for pattern in bits:
                if not any(fnmatch.fnmatchcase(name, pattern) for name in store.entries):
                    fail("no tensor has a name like this", file=str(store.path), value=pattern, choices=store.entries)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.bits:
            raise KeyError(name)
        return self._store.torch(name, self.bits[name], fill=self._fill)

    def __iter__(self) -> Iterator[str]:
        return iter(self.bits)

    def load(self) -> dict[str, torch.Tensor]:
        """All tensors, the next ones being read while one is made."""
        read = self._store.stream(self.bits, fill=self._fill)
        return {name: from_codes(self._store.entries[name].element, codes) for name, codes in read}

    def __len__(self) -> int:
        return len(self.bits)


def load_model(
    path: Path | str,
    bits: ModelBits = None,
    *,
    fill: Fill = "midpoint",
    threads: int | None = None,
    direct: bool = False,
) -> torch.nn.Module:
    """A Hugging Face model from a store that was packed from its folder, each tensor at `bits` (see :func:`bits_for`).

    `threads` and `direct` as for :class:`tierform.store.Store`.  The class is the first of the configuration's
    ``architectures``; no code is taken from the store or the Hub.
    """
    from tierform.store.reader import Store

    try:
        import transformers
    except ImportError:
        raise MissingDependency("transformers", "loading a model", "train") from None
    with Store(path, threads=threads, direct=direct) as store:
        if "config.json" not in store.attachments:
            fail(
                "the store has no config.json, so the model's class is unknown",
                file=str(path),
                fix="Pack the whole model folder, or read tensors with tierform.store.open.",
            )
        try:
            settings = json.loads(store.attachment("config.json"))
            name, kind = settings["architectures"][0], settings["model_type"]
        except (ValueError, KeyError, IndexError, TypeError):
            fail("config.json does not name its architectures and model_type", file=str(path))
        model_class = getattr(transformers, name, None) if isinstance(name, str) else None
        if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
            fail("transformers has no such model class", file=str(path), key="architectures", value=name)
        config = transformers.AutoConfig.for_model(kind, **{k: v for k, v in settings.items() if k != "model_type"})
        weights = LazyStateDict(store, bits, fill).load()
    floating = next((one.dtype for one in weights.values() if one.is_floating_point() and one.element_size() > 1), None)
    loaded: torch.nn.Module = model_class.from_pretrained(
        None, config=config, state_dict=weights, dtype=floating or "auto"
    )
    loaded.eval()
    return loaded
