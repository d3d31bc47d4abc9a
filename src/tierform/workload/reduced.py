"""Reduced models: sublayers or layers left out, narrower layers, sparse matrices.  Each is a model like any other.

| what | says |
|---|---|
| `without(attention="21-31")` | layers without attention; the residual stream passes by, nothing is cached there |
| `without(ffn=..., layers=...)` | layers without their feed-forward part; layers that are not there |
| `narrowed(heads=0.5, ffn=0.75)` | a share of the heads (groups that share keys stay whole), of the FFN's width |
| `sparse("2:4")`, `sparse(0.3, "csr")` | zeros in the matrices of layers: a pattern, or a density in a format |

A sparse matrix takes its bytes from the format: `n:m` n values of m and the places of each, `bitmap` a bit for each
number and the values, `csr` a 16-bit column beside each value and a 32-bit start of each row.  A component computes
with it as with the dense one, unless it states a rate for patterns (GPUs: `structured_sparsity`).  So an unstructured
density pays only where its format is smaller than the dense matrix.
Source of what skipping does: Tyukin et al. (2024), He et al. (2024); of the formats: Hoefler et al., Sparsity in Deep
Learning (2021).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from tierform.errors import Problem, TierformError

if TYPE_CHECKING:
    from tierform.workload.models import Model

FORMATS = ("csr", "bitmap")
_NUMBERS = "Give numbers and ranges, for example 21-31 or 3,7,9-11."


@dataclass(frozen=True, slots=True)
class Reduction:
    """What is taken away from a model: `attention`, `ffn` and `layers` name layers (``21-31`` or ``3,7``).

    `heads` and `ffn_width` are the shares that stay; `sparse` is a pattern (``2:4``) or a density (``0.3``) in
    `sparse_format`.
    """

    attention: str = ""
    ffn: str = ""
    layers: str = ""
    heads: float = 1.0
    ffn_width: float = 1.0
    sparse: str = ""
    sparse_format: Literal["csr", "bitmap"] = "bitmap"

    def of(self, model: Model) -> Model:
        """The reduced model; TierformError with everything that cannot be."""
        problems: list[Problem] = []
        made = model
        for make in (self._narrowed, self._sparse, self._without):
            try:
                made = make(made)
            except TierformError as error:
                problems += error.problems
        if problems:
            raise TierformError(problems)
        return made

    def _narrowed(self, model: Model) -> Model:
        return model if self.heads == self.ffn_width == 1.0 else narrowed(model, self.heads, self.ffn_width)

    def _sparse(self, model: Model) -> Model:
        return sparse(model, self.sparse, self.sparse_format) if self.sparse else model

    def _without(self, model: Model) -> Model:
        named = self.attention or self.ffn or self.layers
        return without(model, attention=self.attention, ffn=self.ffn, layers=self.layers) if named else model

    @property
    def used(self) -> dict[str, object]:
        """What it says, without what stays as it is."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


def without(model: Model, *, attention: str = "", ffn: str = "", layers: str = "") -> Model:
    """The model without these attention or FFN sublayers, or whole layers, all numbered from 0 as they are now."""
    problems: list[Problem] = []
    if model.kind == "encoder-decoder":
        problems.append(Problem("leaving parts out is for models of one stack", key="skip", value=model.name))
    found = {}
    for key, text in (("attention", attention), ("ffn", ffn), ("layers", layers)):
        try:
            found[key] = numbers_of(text, model.layers, key)
        except TierformError as error:
            problems += error.problems
    if not problems:
        skipped = {
            "attention": {*model.without_attention, *found["attention"]},
            "ffn": {*model.without_ffn, *found["ffn"]},
        }
        gone = found["layers"] | (skipped["attention"] & skipped["ffn"])
        if len(gone) >= model.layers:
            problems.append(Problem("no layer would be left", key="layers", value=layers or attention))
    if problems:
        raise TierformError(problems)
    left = [number for number in range(model.layers) if number not in gone]

    def renumbered(numbers: set[int]) -> tuple[int, ...]:
        return tuple(new for new, old in enumerate(left) if old in numbers)

    return replace(
        model,
        layers=len(left),
        matrix_formats=None if model.matrix_formats is None else model.matrix_formats.kept(left),
        dense_layers=renumbered(set(model.dense_layers)),
        without_attention=renumbered(skipped["attention"]),
        without_ffn=renumbered(skipped["ffn"]),
    )


def left_out(model: Model, layer: int | str) -> frozenset[str]:
    """The sublayers that a layer (by its number) does not have."""
    lists = (("attention", model.without_attention), ("ffn", model.without_ffn))
    return frozenset(name for name, numbers in lists if layer in numbers)


def numbers_of(text: str, layers: int, key: str) -> set[int]:
    """The layers that a text such as ``21-31`` or ``3,7,9-11`` names; TierformError with all that are not there."""
    found: set[int] = set()
    problems = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if match is None:
            problems.append(Problem("not a number of a layer", key=key, value=part, fix=_NUMBERS))
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= layers:
            what = f"there is no such sublayer: the layers are 0 to {layers - 1}"
            problems.append(Problem(what, key=key, value=part, nearest=f"{min(first, layers - 1)}-{layers - 1}"))
            continue
        found.update(range(first, last + 1))
    if problems:
        raise TierformError(problems)
    return found


def narrowed(model: Model, heads: float = 1.0, ffn: float = 1.0) -> Model:
    """The model with a share of its heads and of its FFN's width (or experts' widths); the residual stream stays."""
    problems = [
        Problem("a share above 0 and at most 1 is needed", key=key, value=share)
        for key, share in (("heads", heads), ("ffn_width", ffn))
        if not 0 < share <= 1
    ]
    if model.latent_attention and heads != 1.0:
        problems.append(Problem("heads of latent attention are not narrowed", key="heads", value=heads))
    if problems:
        raise TierformError(problems)
    group = model.heads // model.kv_heads
    kv = max(1, round(model.kv_heads * heads))
    per_group = group if model.kv_heads > 1 else max(1, round(group * heads))

    def width(size: int) -> int:
        return max(1, round(size * ffn)) if size else 0

    return replace(
        model,
        heads=kv * per_group,
        kv_heads=kv,
        ffn_size=width(model.ffn_size),
        expert_ffn_size=width(model.expert_ffn_size),
        shared_ffn_size=width(model.shared_ffn_size),
    )


def sparse(model: Model, density: str | float, format: str = "bitmap") -> Model:
    """The model with zeros in the matrices of its layers: ``2:4``, or a density stored as ``csr`` or ``bitmap``."""
    written = str(density).strip()
    pattern = re.fullmatch(r"([0-9]{1,2}):([0-9]{1,2})", written)
    if pattern and 0 < int(pattern[1]) <= int(pattern[2]):
        return replace(model, sparsity=written)
    problems = []
    try:
        share = float(written)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        what = "a density is a share of numbers that stay (0.3) or a pattern (2:4)"
        problems.append(Problem(what, key="sparse", value=written))
    if format not in FORMATS:
        problems.append(
            Problem("no such format", key="sparse_format", value=format, fix=f"Known: {', '.join(FORMATS)}.")
        )
    if problems:
        raise TierformError(problems)
    return replace(model, sparsity=f"{share:g}-{format}")
