"""Several chips at one task: how its layers, its batch and its tokens are shared.

- Tensor parallelism over t chips (Shoeybi et al., Megatron-LM, 2019): query, key, value, gate and up matrices are cut
  by output features, attention by heads, output and down matrices by input features, the vocabulary by rows.  Partial
  sums are added by all-reduces: of what attention and FFN give in the forward pass, of their input gradients in the
  backward pass.  Normalization, residuals, routers and low-rank inputs are repeated on every chip.
- Sequence parallelism beside it (Korthikanti et al., 2022): what would be repeated is done for a part of the tokens; an
  all-gather before and a reduce-scatter after each cut part take the place of the all-reduce.
- Pipeline parallelism over p groups: each has a consecutive part of the layers and sends its results on.  Interleaved
  (Narayanan et al., SC 2021): each group has m shorter parts that lie p parts apart, so that the pipeline fills m times
  as fast and sends m times as often.
- Context parallelism over c chips (ring attention: Liu, Zaharia, Abbeel, ICLR 2024): each has a part of every
  sequence's tokens; keys and values go round the ring, see :mod:`tierform.workload.ops.ring`.  Weights and their
  gradients are those of further copies.
- Data parallelism over d copies: each has a part of the batch; gradients are all-reduced before the update.
- Sharded states beside it (ZeRO, Rajbhandari et al., SC 2020), see :mod:`tierform.workload.sharding`: each copy keeps
  its d-th part of the optimizer's states (1), of the gradients, too (2), of the weights, too (3, FSDP).

Layers are laid out for one chip from the start (:mod:`tierform.workload.ops`), so no operator is cut afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tierform.errors import Problem, TierformError

if TYPE_CHECKING:
    from tierform.workload.models import Model


def _check(owner: object, *names: str) -> None:
    problems = [
        Problem("must be a whole number of at least 1", key=name, value=value)
        for name in names
        if isinstance(value := getattr(owner, name), bool) or not isinstance(value, int) or value < 1
    ]
    if problems:
        raise TierformError(problems)


# Fields that came later: they are left out of descriptions and hashes where they are not used.
_LATER = ("zero", "interleave", "overlap", "expert", "imbalance", "capacity", "context")


@dataclass(frozen=True, slots=True, repr=False)
class Parallelism:
    """How many chips share each layer, the run of layers, and the batch; `sequence` goes with `tensor`.

    `zero` (0 to 3) shards the states of training over the copies of `data`; `interleave` gives each group of
    `pipeline` so many parts of the layers; `overlap` reduces the gradients of each layer beside the backward pass of
    the layers before it, in the last pass before the update.  `expert` chips share the experts of a layer, see
    :mod:`tierform.workload.spread`: `imbalance` is the busiest chip's rows over the mean, `capacity` (0: none) the
    factor of each expert's padded buffer.  `context` chips share the tokens of each sequence (ring attention).
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sequence: bool = False
    zero: int = 0
    interleave: int = 1
    overlap: bool = False
    expert: int = 1
    imbalance: float = 1.0
    capacity: float = 0.0
    context: int = 1

    def __post_init__(self) -> None:
        _check(self, "tensor", "pipeline", "data", "interleave", "expert", "context")
        problems = self._expert_problems()
        if isinstance(self.zero, bool) or self.zero not in (0, 1, 2, 3):
            problems.append(Problem("must be 0, 1, 2 or 3", key="zero", value=self.zero))
        if self.sequence and self.tensor == 1:
            problems.append(
                Problem(
                    "sequence parallelism shares the tokens among the chips of tensor parallelism; there is one",
                    key="sequence",
                    value=self.sequence,
                    fix="Give tensor=2 or more with it.",
                )
            )
        if self.zero and self.copies == 1:
            problems.append(
                Problem(
                    "states are sharded over the copies of data and context parallelism; there is one",
                    key="zero",
                    value=self.zero,
                    fix="Give data=2 or more with it.",
                )
            )
        if self.interleave > 1 and self.pipeline == 1:
            problems.append(
                Problem(
                    "interleaving gives every group of a pipeline several parts of the layers; there is one group",
                    key="interleave",
                    value=self.interleave,
                    fix="Give pipeline=2 or more with it.",
                )
            )
        if self.overlap and self.copies == 1:
            problems.append(
                Problem(
                    "gradients are reduced over the copies of data and context parallelism; there is one",
                    key="overlap",
                    value=self.overlap,
                    fix="Give data=2 or more with it.",
                )
            )
        if problems:
            raise TierformError(problems)

    def _expert_problems(self) -> list[Problem]:
        """What the sharing of experts says that no chips can do."""
        problems = []
        if self.expert > 1 and self.expert != self.tensor and self.data % self.expert:
            fix = f"Give expert={self.tensor}." if self.tensor > 1 else f"Give data={self.expert} with it."
            what = (
                "experts are shared by a tensor group (expert = tensor) or by copies of the model (a divisor of data)"
            )
            problems.append(Problem(what, key="expert", value=self.expert, fix=fix))
        for key, least in (("imbalance", 1.0), ("capacity", 0.0)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1000:
                problems.append(Problem(f"must be a number from {least:g} to 1000", key=key, value=value))
            elif value != least and self.expert == 1 and key == "imbalance":
                problems.append(Problem("experts are on one chip", key=key, value=value, fix="Give expert with it."))
        if self.capacity and self.imbalance != 1.0:
            what = "buffers of a given capacity take the same time whatever the router says"
            problems.append(Problem(what, key="imbalance", value=self.imbalance, fix="Give one of the two."))
        return problems

    @property
    def chips(self) -> int:
        """Chips in all."""
        return self.tensor * self.pipeline * self.copies

    @property
    def copies(self) -> int:
        """Chips that have the same weights: the copies of `data`, each of `context` chips."""
        return self.data * self.context

    @property
    def parts(self) -> int:
        """Parts that the run of layers is cut into: one for each pipeline group, or `interleave` of them."""
        return self.pipeline * self.interleave

    def content(self) -> dict[str, int | bool | float]:
        """The split as plain data; what is not used of the later fields is left out."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if name not in _LATER or value != getattr(ALONE, name)}

    def __repr__(self) -> str:
        return f"Parallelism({', '.join(f'{name}={value!r}' for name, value in self.content().items())})"


ALONE = Parallelism()


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Into how many parts the batch of each phase is cut.  Parts differ by one sequence where they must."""

    prefill: int = 1
    decode: int = 1
    training: int = 1

    def __post_init__(self) -> None:
        _check(self, *(item.name for item in fields(self)))


ONE_PART = MicroBatches()


def parts_of(sequences: Sequence[int], parts: int) -> list[tuple[tuple[int, ...], int]]:
    """[(sequences of each kind in a part, how many such parts)], larger parts first.

    17 sequences of one kind in 2 parts: [((9,), 1), ((8,), 1)].
    """
    found: list[tuple[tuple[int, ...], int]] = []
    for index in range(parts):
        part = tuple(number // parts + (index < number % parts) for number in sequences)
        if found and found[-1][0] == part:
            found[-1] = (part, found[-1][1] + 1)
        else:
            found.append((part, 1))
    return found


def split_problems(training: bool, micro_batches: int, split: Parallelism) -> list[Problem]:
    """What a split asks for that its task cannot do."""
    problems = []
    if split.overlap and not training:
        what = "gradients are reduced in training; inference has none"
        problems.append(Problem(what, key="overlap", value=split.overlap, fix="Leave overlap out."))
    if split.overlap and split.pipeline > 1:
        what = "gradients of a pipeline wait for the last of its micro-batches: they cannot be reduced beside them here"
        problems.append(Problem(what, key="overlap", value=split.overlap, fix="Leave overlap out."))
    if split.zero and not training:
        what = "states are sharded in training; inference has none"
        problems.append(Problem(what, key="zero", value=split.zero, fix="Leave zero at 0; tensor shares the weights."))
    if split.interleave > 1 and not training:
        what = "interleaving shortens the idle time of training"
        problems.append(Problem(what, key="interleave", value=split.interleave, fix="Leave interleave at 1."))
    elif split.interleave > 1 and micro_batches % split.pipeline:
        problems.append(
            Problem(
                f"interleaved groups take turns of {split.pipeline} micro-batches, and {micro_batches} are no multiple",
                key="interleave",
                value=split.interleave,
                fix=f"Give a multiple of {split.pipeline} micro-batches (times gradient accumulation).",
            )
        )
    return problems


def check_tensor(model: Model, tensor: int, *, whole_experts: bool = False) -> None:
    """TierformError with every size of the model that `tensor` chips cannot share; `whole_experts` are not cut."""
    sizes = {"heads": model.heads, "feed-forward width": model.ffn_size, "expert width": model.expert_ffn_size}
    sizes |= {"shared expert width": model.shared_ffn_size}
    if model.experts and len(model.dense_layers) == 0:
        sizes["feed-forward width"] = 0  # of no layer
    if whole_experts:
        sizes["expert width"] = 0  # not cut
    fix = "Choose a tensor parallelism that divides heads and widths."
    problems = [
        Problem(f"{size} does not divide among {tensor} chips", key=f"{model.name}: {name}", value=size, fix=fix)
        for name, size in sizes.items()
        if size % tensor
    ]
    kv = model.kv_heads
    if not model.latent_attention and kv and kv % tensor and tensor % kv:
        problems.append(
            Problem(
                f"{kv} does not divide among {tensor} chips", key=f"{model.name}: key/value heads", value=kv, fix=fix
            )
        )
    if problems:
        raise TierformError(problems)
