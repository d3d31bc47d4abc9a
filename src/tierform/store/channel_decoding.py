"""Decoding straight from planes: a language model whose matrices are never unpacked, one token after another.

Every linear layer of the model is a matrix of planes; those that are given the same tensor (query, key and value; gate
and up) are one matrix.  A single token's input decides how many planes each of its channels is read at
(:mod:`tierform.store.channel_rule`), and the product is made from those planes (:mod:`tierform.store.matvec`) by a few
threads, each with its share of the outputs.  Several tokens at once are taken eight together where all are read at the
same planes, with the same results as alone, and else one after another.  Bytes and time are counted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tierform.errors import fail
from tierform.store.channel_file import ChannelMatrix, read_all
from tierform.store.channel_rule import budget_of, depths_of
from tierform.store.matvec import multiply
from tierform.store.nested import PLANES, WORD, ChannelPlanes, NestedMatrix, from_planes, to_planes
from tierform.store.reader import Store

TOGETHER = 8  # tokens whose products are made at once where all are read at the same planes
_LEAST_SHARE = 8  # words of outputs below which a matrix is not shared between threads


@dataclass(slots=True)
class PlaneReads:
    """What was read and how long products took."""

    products: int = 0
    planes_B: int = 0
    whole_B: int = 0
    rule_s: float = 0.0
    product_s: float = 0.0


@dataclass(slots=True)
class Depth:
    """How deep channels are read: the average, and whether the token decides (else all at the same whole number)."""

    planes: float = PLANES
    dynamic: bool = True
    reads: PlaneReads = field(default_factory=PlaneReads)


def shared(planes: ChannelPlanes, parts: int) -> list[ChannelPlanes]:
    """The matrix cut by outputs into at most `parts` matrices of whole words, each laid out anew."""
    words = planes.words.shape[3]
    parts = max(1, min(parts, words // _LEAST_SHARE))
    if parts == 1:
        return [planes]
    edges = [min(round(words * number / parts) * WORD, planes.outputs) for number in range(parts + 1)]
    whole = from_planes(planes)
    return [
        to_planes(NestedMatrix(whole.codes[a:b], whole.scale[:, a:b], whole.offset[:, a:b], whole.group))
        for a, b in pairwise(edges)
    ]


def joined(matrices: Sequence[ChannelMatrix]) -> ChannelMatrix:
    """Matrices of the same inputs as one, output below output; a channel's worth is that to all of them."""
    if len(matrices) == 1:
        return matrices[0]
    parts = [from_planes(one.planes) for one in matrices]
    whole = NestedMatrix(
        np.concatenate([one.codes for one in parts]),
        np.concatenate([one.scale for one in parts], 1),
        np.concatenate([one.offset for one in parts], 1),
        parts[0].group,
    )
    return ChannelMatrix(to_planes(whole), np.sum([one.worth for one in matrices], 0, dtype=np.float32))


class PlaneProducts:
    """The products of one input with the matrices that read it, as one product from planes at one choice of depths."""

    def __init__(
        self, matrices: Sequence[ChannelMatrix], depth: Depth, pool: ThreadPoolExecutor | None, threads: int
    ) -> None:
        matrix = joined(matrices)
        self.parts, self.depth, self.pool = shared(matrix.planes, threads), depth, pool
        self.worth = np.ascontiguousarray(matrix.worth.T)
        self.inputs = matrix.planes.inputs
        self.plane_B = self.inputs * matrix.planes.channel_B()
        edges = np.cumsum([0, *(one.planes.outputs for one in matrices)]).tolist()
        self.columns = [slice(*pair) for pair in pairwise(edges)]
        self._given: Tensor | None = None
        self._made: Tensor | None = None
        self._taken: set[int] = set()

    def of(self, given: Tensor, number: int) -> Tensor:
        """What the matrix of this number makes of (..., inputs): one product serves all that are given this tensor."""
        made = self._made
        if made is None or given is not self._given or number in self._taken:
            made = self._compute(given)
            self._given, self._made, self._taken = given, made, set()
        self._taken.add(number)
        if len(self._taken) == len(self.columns):
            self._given = self._made = None
        return made[..., self.columns[number]]

    def depths(self, x: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Planes of each channel for one token's inputs."""
        if not self.depth.dynamic or self.depth.planes == PLANES:
            return np.full(self.inputs, int(self.depth.planes), np.uint8)
        found: NDArray[np.uint8] = depths_of(x, self.worth, budget_of(self.inputs, self.depth.planes))
        return found

    def _compute(self, given: Tensor) -> Tensor:
        rows = given.detach().float().reshape(-1, self.inputs).contiguous().numpy()
        # tokens that are all read at the same planes share the work; others are taken one after another
        together = 1 if self.depth.dynamic and self.depth.planes < PLANES else TOGETHER
        results = [self._product(rows[at : at + together]) for at in range(0, len(rows), together)]
        y = torch.from_numpy(results[0] if len(results) == 1 else np.concatenate(results))
        return y.view(*given.shape[:-1], -1)

    def _product(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The products (tokens, outputs) of tokens that are read at the planes of the first."""
        reads = self.depth.reads
        begin = time.perf_counter()
        planes = self.depths(rows[0])
        middle = time.perf_counter()
        made = self.multiply(rows, planes)
        reads.rule_s += middle - begin
        reads.product_s += time.perf_counter() - middle
        reads.planes_B += self.plane_B // self.inputs * int(planes.sum())
        reads.whole_B += self.plane_B * PLANES
        reads.products += 1
        return made

    def multiply(self, rows: NDArray[np.float32], planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The products (tokens, outputs of all matrices) at these planes."""
        if self.pool is None or len(self.parts) == 1:
            made = [multiply(part, rows, planes) for part in self.parts]
        else:
            waiting = [self.pool.submit(multiply, part, rows, planes) for part in self.parts[1:]]
            made = [multiply(self.parts[0], rows, planes), *(one.result() for one in waiting)]
        return made[0] if len(made) == 1 else np.concatenate(made, axis=1)


class PlaneLinear(nn.Module):
    """A linear layer made of planes: the matrix of this number among those that read its input."""

    def __init__(self, products: PlaneProducts, number: int, bias: Tensor | None) -> None:
        super().__init__()
        self.products, self.number, self.bias = products, number, bias

    def forward(self, given: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        y = self.products.of(given, self.number)
        return y if self.bias is None else y + self.bias


@dataclass(slots=True)
class PlaneModel:
    """A Hugging Face model over planes; `depth` may be changed at any time."""

    model: Any
    depth: Depth

    def at(self, planes: float, *, dynamic: bool = True) -> PlaneReads:
        """Read at an average of `planes` from now on; the counts begin anew and are returned."""
        if not 0 < planes <= PLANES or (not dynamic and planes != int(planes)):
            fail(
                f"above 0 and at most {PLANES} planes are read; without a rule a whole number",
                key="planes",
                value=planes,
            )
        self.depth.planes, self.depth.dynamic, self.depth.reads = planes, dynamic, PlaneReads()
        return self.depth.reads


def open_plane_model(path: Path | str, *, threads: int = 2) -> PlaneModel:
    """The model of a store that was packed channel by channel (:func:`tierform.store.channel_file.pack_channels`)."""
    import transformers

    with Store(path) as store:
        matrices = read_all(store)
        settings = json.loads(store.attachment("config.json"))
        rest = {
            name: store.torch(name).float()
            if store.entries[name].element.kind.startswith("float")
            else store.torch(name)
            for name in store.entries
            if name.rpartition(".")[0] not in matrices
        }
    name = (settings.get("architectures") or [""])[0]
    model_class = getattr(transformers, str(name), None)
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        fail("transformers has no such model class", file=str(path), key="architectures", value=name)
    kind = settings.pop("model_type")
    config = transformers.AutoConfig.for_model(kind, **settings)
    with torch.device("meta"):
        model: Any = model_class(config)
    places = {weight: weight.removesuffix(".weight") for weight in matrices}
    biases = {weight: rest.pop(f"{place}.bias", None) for weight, place in places.items()}
    seen: list[tuple[int, str]] = []
    for weight, place in places.items():
        model.set_submodule(place, _Listening(weight, matrices[weight].planes.outputs, seen))
    for owner, part in model.named_modules():
        for key, parameter in list(part.named_parameters(recurse=False)):
            full = f"{owner}.{key}" if owner else key
            if full in rest:
                setattr(part, key, nn.Parameter(rest[full], requires_grad=False))
            elif parameter.is_meta and not full.startswith("lm_head"):
                fail("the store lacks a tensor of the model", file=str(path), key=full)
    model.tie_weights()
    _fill_buffers(model, config)
    depth = Depth()
    pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None
    for group in _of_one_input(model.eval(), list(matrices), seen):
        products = PlaneProducts([matrices[weight] for weight in group], depth, pool, threads)
        for number, weight in enumerate(group):
            model.set_submodule(places[weight], PlaneLinear(products, number, biases[weight]))
    return PlaneModel(model.eval(), depth)


class _Listening(nn.Module):
    """In the place of a matrix: notes which tensor it is given, and gives zeros."""

    def __init__(self, name: str, outputs: int, seen: list[tuple[int, str]]) -> None:
        super().__init__()
        self.name, self.outputs, self.seen = name, outputs, seen
        self.kept: list[Tensor] = []  # so that no other tensor takes over an identity

    def forward(self, given: Tensor) -> Tensor:
        """Zeros (..., outputs)."""
        self.kept.append(given)
        self.seen.append((id(given), self.name))
        return given.new_zeros((*given.shape[:-1], self.outputs))


def _of_one_input(model: Any, names: list[str], seen: list[tuple[int, str]]) -> list[list[str]]:
    """The matrices in groups that are given the same tensor, told by a pass over two tokens.

    Models of anything but tokens, and matrices that the pass does not come to, are not grouped.
    """
    if model.main_input_name != "input_ids":
        return [[name] for name in names]
    with torch.no_grad():
        model(input_ids=torch.zeros((1, 2), dtype=torch.long))
    by_input: dict[int, list[str]] = {}
    for identity, name in seen:
        by_input.setdefault(identity, []).append(name)
    counted = Counter(name for _, name in seen)
    groups = [group for group in by_input.values() if all(counted[name] == 1 for name in group)]
    grouped = {name for group in groups for name in group}
    return [*groups, *([name] for name in names if name not in grouped)]


def _fill_buffers(model: Any, config: Any) -> None:
    """Buffers that a model computes when it is made (positions): taken from a twin without layers."""
    wanted = [name for name, one in model.named_buffers() if one.is_meta]
    if not wanted:
        return
    import copy

    small = copy.deepcopy(config)
    small.num_hidden_layers = 1
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:1]
    twin = dict(type(model)(small).named_buffers())
    for name in wanted:
        if name not in twin:
            fail("the model has a buffer that is not in its weights", key=name)
        owner, _, key = name.rpartition(".")
        part = model.get_submodule(owner)
        part.register_buffer(key, twin[name], persistent=False)
        if hasattr(part, f"original_{key}"):
            setattr(part, f"original_{key}", twin[name])


def greedy(model: nn.Module, ids: list[int], tokens: int) -> tuple[list[int], float]:
    """The next `tokens` tokens, and seconds a token without the prompt."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), use_cache=True)
        found = [int(out.logits[0, -1].argmax())]
        begin = time.perf_counter()
        for _ in range(tokens - 1):
            out = model(input_ids=torch.tensor([found[-1:]]), past_key_values=out.past_key_values, use_cache=True)
            found.append(int(out.logits[0, -1].argmax()))
    return found, (time.perf_counter() - begin) / max(tokens - 1, 1)
