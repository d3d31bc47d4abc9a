"""A language model whose matrices are read from a store at a precision per group and per token, run for real.

Every linear matrix of the decoder layers is cut into groups: rows by head (q, k, v) or by neurons (fc1), columns by
head (out_proj) or by neurons (fc2); the latter two are kept transposed in the store, so that a group is a run of its
blocks.  A token's output uses for every group exactly the weights that the group's bits give: for row groups each
output is taken from the product with the weights of its precision, for column groups the inputs are split by
precision.  Embeddings, norms and biases stay exact and are not counted.  Models are OPT (Zhang et al., 2022): a small
one trained here on bytes of text, or a published one by folder or Hub id.  Limits: a budget holds per matrix and token;
products are made in float32 on the CPU, once per precision level, so this measures quality, not speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tierform.errors import fail, first_line
from tierform.store.importance import Group
from tierform.store.precision import RowBits
from tierform.store.reader import Store
from tierform.store.writer import pack_tensors

MATRICES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
BY_COLUMNS = ("out_proj", "fc2")
Say = Callable[[str], None]


@dataclass(slots=True)
class TextModel:
    """A model with its text as token ids: `train` to calibrate, `test` to measure, `context` tokens at a time."""

    model: Any
    train: torch.Tensor
    test: torch.Tensor
    context: int
    unit: str

    def batches(self, which: torch.Tensor, limit: int, size: int = 8) -> Iterator[torch.Tensor]:
        """Non-overlapping windows of `context` tokens, at most `limit` of them."""
        count = min(len(which) // self.context, limit)
        windows = which[: count * self.context].view(count, self.context)
        for first in range(0, count, size):
            yield windows[first : first + size]


def load_published(name: str, train: str, test: str, context: int = 512) -> TextModel:
    """An OPT model by folder or Hub id (safetensors only), with its own tokenizer on the texts."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type != "opt":
            fail("the study runs OPT models", key="model", value=config.model_type)
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float16, use_safetensors=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        fail(f"the model cannot be loaded: {first_line(error)}", key="model", value=name)
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in (train, test)]
    size = min(context, config.max_position_embeddings)
    return TextModel(rounded(model), ids[0], ids[1], size, "token")


def rounded(model: nn.Module) -> nn.Module:
    """The model with weights that fp16 holds, computing in float32."""
    return model.half().float().eval()


class Site:
    """One matrix: its linear layer, its groups, and its weights at every precision level, read from the store."""

    def __init__(self, name: str, layer: int, kind: str, linear: nn.Linear, group_width: int) -> None:
        self.name, self.layer, self.kind, self.linear = name, layer, kind, linear
        self.by_columns = kind in BY_COLUMNS
        self.group_width = group_width
        size = linear.in_features if self.by_columns else linear.out_features
        self.count = size // group_width
        other = linear.out_features if self.by_columns else linear.in_features
        self.groups = [Group(layer, kind, index, group_width * other) for index in range(self.count)]
        self.levels: torch.Tensor | None = None

    def stored(self) -> NDArray[np.float16]:
        """The matrix as it goes into the store: groups are runs of rows."""
        weight = self.linear.weight.detach()
        held: NDArray[np.float16] = (weight.T if self.by_columns else weight).contiguous().half().numpy()
        return held

    def read(self, store: Store, levels: list[int]) -> None:
        """Bring the weights in at each of `levels` bits."""
        parts = [torch.from_numpy(store.read(self.name, bits).astype(np.float32)) for bits in levels]
        self.levels = torch.stack([part.T.contiguous() if self.by_columns else part for part in parts])

    def product(self, inputs: torch.Tensor, bits: torch.Tensor, lowest: int) -> torch.Tensor:
        """`inputs` [token, in] times the matrix whose groups have `bits` [token or 1, group]."""
        assert self.levels is not None
        levels = (bits - lowest).long()
        used = np.flatnonzero(np.bincount(levels.numpy().reshape(-1))).tolist()
        index = levels.expand(len(inputs), -1).repeat_interleave(self.group_width, 1)
        result = torch.zeros(len(inputs), self.linear.out_features)
        for level in used:
            chosen = index == level
            if self.by_columns:
                result += (inputs * chosen) @ self.levels[level].T
            else:
                result += (inputs @ self.levels[level].T) * chosen
        return result if self.linear.bias is None else result + self.linear.bias


class PlanedModel:
    """A text model with its matrices in a store; `bits_of(site, inputs)` decides each group's precision as it runs."""

    def __init__(self, text: TextModel, path: Path, lowest: int, highest: int) -> None:
        """Pack the matrices into the store `path` and read every level from `lowest` to `highest` bits back from it."""
        self.text, self.lowest, self.highest, self.path = text, lowest, highest, path
        decoder = text.model.model.decoder
        head = text.model.config.hidden_size // text.model.config.num_attention_heads
        self.sites: list[Site] = []
        for number, layer in enumerate(decoder.layers):
            for kind in MATRICES:
                linear = getattr(layer.self_attn if kind.endswith("proj") else layer, kind)
                self.sites.append(Site(f"layers.{number}.{kind}.weight", number, kind, linear, head))
        self.layers = decoder.layers
        pack_tensors(((site.name, site.stored()) for site in self.sites), path)
        with Store(path) as store:
            for site in self.sites:
                site.read(store, list(range(lowest, highest + 1)))
            self.error = self._relative_error(store)

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, site by site."""
        return tuple(group for site in self.sites for group in site.groups)

    def _relative_error(self, store: Store) -> NDArray[np.float64]:
        """Relative squared error of the weights at each level, over all matrices."""
        exact = {site.name: store.read(site.name).astype(np.float64) for site in self.sites}
        total = sum(float((one**2).sum()) for one in exact.values())
        errors = []
        for bits in range(self.lowest, self.highest + 1):
            parts = [((store.read(site.name, bits) - exact[site.name]) ** 2).sum() for site in self.sites]
            errors.append(float(sum(parts)) / total)
        return np.array(errors)

    def bytes_for(self, bits: NDArray[np.uint8]) -> int:
        """Plane bytes that one reading with `bits` per group (all groups, in order) takes, counted by the store."""
        at = 0
        with Store(self.path) as store:
            for site in self.sites:
                rows = RowBits(bits[at : at + site.count], site.group_width)
                store.codes(site.name, rows)
                at += site.count
            return store.count.planes_B

    @contextmanager
    def reading(self, bits_of: Callable[[Site, torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """Within this block the model computes with the precisions that `bits_of` gives."""
        handles = []
        for site in self.sites:

            def hook(_: object, given: tuple[torch.Tensor, ...], __: object, site: Site = site) -> torch.Tensor:
                inputs = given[0]
                flat = inputs.reshape(-1, inputs.shape[-1])
                out = site.product(flat, bits_of(site, flat), self.lowest)
                return out.view(*inputs.shape[:-1], -1)

            handles.append(site.linear.register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def losses(self, windows: int) -> NDArray[np.float64]:
        """The mean loss a token of each of at most `windows` windows of the test text, in nats."""
        found = []
        with torch.no_grad():
            for ids in self.text.batches(self.text.test, windows):
                logits = self.text.model(input_ids=ids).logits[:, :-1].float()
                each = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
                found.append(each.mean(1).double().numpy())
        if not found:
            fail("the test text is shorter than one context", value=len(self.text.test))
        return np.concatenate(found)

    def perplexity(self, windows: int) -> float:
        """The exponential of the mean loss a token over at most `windows` windows of the test text."""
        return float(np.exp(self.losses(windows).mean()))


@dataclass(slots=True)
class Calibration:
    """What the training text tells: sensitivity of each group, activity of each unit, and predictors' material."""

    sensitivity: NDArray[np.float64]
    mean_energy: dict[str, NDArray[np.float64]]
    inputs: list[NDArray[np.float32]]
    energies: dict[str, NDArray[np.float64]]


def group_energy(site: Site, values: torch.Tensor) -> torch.Tensor:
    """Sum of squares of each group's units, [token, group], of what a row site gives out or a column site takes in."""
    return values.reshape(len(values), site.count, site.group_width).pow(2).sum(-1)


def calibrate(planed: PlanedModel, windows: int, say: Say | None = None) -> Calibration:
    """Gradients and activities on `windows` windows of the training text.

    A group's sensitivity is the sum over its weights of (mean squared gradient) x (weight squared): the diagonal
    Fisher estimate of the loss change when every weight has the same relative error.
    """
    sums = {site.name: torch.zeros_like(site.linear.weight) for site in planed.sites}
    energies: dict[str, list[NDArray[np.floating]]] = {site.name: [] for site in planed.sites}
    entering: list[list[NDArray[np.floating]]] = [[] for _ in planed.layers]
    handles = []
    for site in planed.sites:

        def note(_: object, given: tuple[torch.Tensor, ...], out: torch.Tensor, site: Site = site) -> None:
            values = (given[0] if site.by_columns else out).detach()
            values = values.reshape(-1, values.shape[-1])
            if site.kind == "fc1":
                values = values.relu()
            energies[site.name].append(group_energy(site, values).numpy())

        handles.append(site.linear.register_forward_hook(note))
    for number, layer in enumerate(planed.layers):

        def enter(_: Any, given: tuple[Any, ...], named: dict[str, Any], number: int = number) -> None:
            states = given[0] if given else named["hidden_states"]
            entering[number].append(states.detach().reshape(-1, states.shape[-1]).numpy())

        handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
    model, count = planed.text.model, 0
    try:
        for ids in planed.text.batches(planed.text.train, windows, size=1):
            model.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            for site in planed.sites:
                assert site.linear.weight.grad is not None
                sums[site.name] += site.linear.weight.grad.pow(2)
            count += 1
            if say is not None and count % 8 == 0:
                say(f"calibrating: window {count} of {windows}")
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    scores = []
    for site in planed.sites:
        product = (sums[site.name] / max(count, 1)) * site.linear.weight.detach().pow(2)
        product = product.T if site.by_columns else product
        scores.append(product.reshape(site.count, -1).sum(1).numpy().astype(np.float64))
    joined = {name: np.concatenate(parts).astype(np.float64) for name, parts in energies.items()}
    return Calibration(
        np.concatenate(scores),
        {name: one.mean(0) + 1e-12 for name, one in joined.items()},
        [np.concatenate(parts) for parts in entering],
        joined,
    )
