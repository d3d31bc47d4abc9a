"""Further methods of adapting a trained model, and many adapters in one batch of inference.

- DoRA (Liu et al., ICML 2024): W' = m (W + B A) / ||W + B A||, norm by output; A, B and the magnitude m learn.
- LoRA-FA (Zhang et al., 2023): A stays as it was drawn, B learns; of the input only its rank-wide image is kept.
- VeRA (Kopiczko et al., ICLR 2024): one frozen pair A, B for all layers; vectors d (rank) and b (outputs) learn:
  b * B (d * A x).
- (IA)^3 (Liu et al., NeurIPS 2022): keys, values and the input of the down projection, each value scaled by a learned
  one.
- Prompt tuning (Lester et al., EMNLP 2021): learned vectors in front of every sequence's embeddings.
- GaLore (Zhao et al., ICML 2024): every parameter learns; the optimizer sees the gradients of matrices in a subspace of
  rank r, which is found anew by a singular value decomposition every so many steps.  Of a matrix of m by n (m <= n)
  it keeps n r for each of two moments and m r for the subspace, where AdamW keeps 2 m n.
- A batch of inference whose sequences use adapters of their own (Punica: Chen et al., MLSys 2024; S-LoRA: Sheng et al.,
  MLSys 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tierform.errors import Problem, TierformError
from tierform.workload.targets import house_targets


def _positive(owner: object, *names: str) -> None:
    problems = [
        Problem("must be a whole number of at least 1", key=name, value=value)
        for name in names
        if isinstance(value := getattr(owner, name), bool) or not isinstance(value, int) or value < 1
    ]
    if problems:
        raise TierformError(problems)


@dataclass(frozen=True, slots=True)
class DoRA:
    """LoRA with a learned magnitude of every output  (Liu et al., ICML 2024)."""

    has_rank: ClassVar[bool] = True

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        _positive(self, "rank")
        object.__setattr__(self, "targets", house_targets(self.targets))


@dataclass(frozen=True, slots=True)
class LoRAFA:
    """LoRA whose first matrix does not learn  (Zhang et al., 2023)."""

    has_rank: ClassVar[bool] = True

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        _positive(self, "rank")
        object.__setattr__(self, "targets", house_targets(self.targets))


@dataclass(frozen=True, slots=True)
class VeRA:
    """Learned vectors around one frozen pair of matrices for all layers  (Kopiczko et al., ICLR 2024)."""

    has_rank: ClassVar[bool] = True

    rank: int = 256
    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        _positive(self, "rank")
        object.__setattr__(self, "targets", house_targets(self.targets))


@dataclass(frozen=True, slots=True)
class IA3:
    """Learned factors of keys, values and the down projection's input  (Liu et al., NeurIPS 2022)."""

    has_rank: ClassVar[bool] = False

    targets: tuple[str, ...] = ("k", "v", "down")

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", house_targets(self.targets))


@dataclass(frozen=True, slots=True)
class PromptTuning:
    """`tokens` learned vectors in front of each sequence  (Lester et al., EMNLP 2021)."""

    has_rank: ClassVar[bool] = False

    tokens: int = 20

    def __post_init__(self) -> None:
        _positive(self, "tokens")


@dataclass(frozen=True, slots=True)
class GaLore:
    """All parameters, by an optimizer in a subspace of `rank`, found anew every `every` steps  (Zhao et al., 2024).

    `scale` is the paper's alpha, by which the step is multiplied on its way back to the weight.
    """

    has_rank: ClassVar[bool] = True

    rank: int = 128
    every: int = 200
    scale: float = 0.25

    def __post_init__(self) -> None:
        _positive(self, "rank", "every")
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float) or not 0 < self.scale <= 1000:
            what = "must be a number above 0, at most 1000"
            raise TierformError([Problem(what, key="scale", value=self.scale, fix="Leave it at 0.25, as published.")])


@dataclass(frozen=True, slots=True)
class AdapterBatch:
    """Low-rank adapters of a batch of inference: `used` different ones in it, `loaded` in memory (0: as many)."""

    rank: int = 16
    targets: tuple[str, ...] = ("q", "v")
    used: int = 1
    loaded: int = 0

    def __post_init__(self) -> None:
        _positive(self, "rank", "used")
        object.__setattr__(self, "targets", house_targets(self.targets))
        if isinstance(self.loaded, bool) or not isinstance(self.loaded, int) or self.loaded < 0:
            raise TierformError([Problem("must be a whole number of at least 0", key="loaded", value=self.loaded)])
        if self.loaded and self.loaded < self.used:
            what = f"{self.used} adapters are used, and fewer are loaded"
            raise TierformError([Problem(what, key="loaded", value=self.loaded, fix="Leave it out, or load them.")])

    @property
    def in_memory(self) -> int:
        """Adapters in memory."""
        return self.loaded or self.used
