"""Low-rank mode: LoRA through PEFT on named matrices, everything else frozen but what is to be trained on.

Adapters are injected into a module in place, so that it keeps its own call signature and can be merged back to a plain
module.  Parts named in `also_train` keep learning as they are (no copy is made of them).  Autograd runs no backward
through layers below the lowest parameter that learns.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tierform.errors import MissingDependency, Problem, TierformError, nearest
from tierform.tuning.rank import ranks_of


@dataclass(frozen=True, slots=True)
class LowRank:
    """How low-rank mode looks: rank (or "spectrum"), scale alpha, dropout, target modules, what else learns.

    `targets` are the last part of a module's name, or its whole name; `also_train` are prefixes of parameter names.
    With rank "spectrum" each matrix gets :func:`tierform.tuning.rank.rank_of` its last window's change, and alpha
    scales with the rank so that alpha / rank stays `alpha` / 8.
    """

    rank: int | Literal["spectrum"] = 8
    alpha: float = 64
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_linear", "v_linear")
    also_train: tuple[str, ...] = ()
    share: float = 0.9
    least: int = 1
    most: int = 64

    def __post_init__(self) -> None:
        problems = []
        if self.rank != "spectrum" and (not isinstance(self.rank, int) or self.rank < 1):
            problems.append(Problem("must be a whole number of at least 1, or spectrum", key="rank", value=self.rank))
        if not self.alpha > 0:
            problems.append(Problem("must be greater than 0", key="alpha", value=self.alpha))
        if not 0 <= self.dropout < 1:
            problems.append(Problem("must be at least 0 and less than 1", key="dropout", value=self.dropout))
        if not self.targets:
            problems.append(Problem("at least one target is needed", key="targets"))
        if not 0 < self.share <= 1:
            problems.append(Problem("must be greater than 0 and at most 1", key="share", value=self.share))
        if not 1 <= self.least <= self.most:
            problems.append(Problem("must be at least 1 and at most `most`", key="least", value=self.least))
        if problems:
            raise TierformError(problems)


def target_modules(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Full names of the matrices (linear layers) that are targets; TierformError when a target names none."""
    adaptable = {name: module for name, module in model.named_modules() if getattr(module, "weight", None) is not None}
    adaptable = {name: m for name, m in adaptable.items() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"}
    found: list[str] = []
    problems = []
    last = sorted({name.rsplit(".", 1)[-1] for name in adaptable})
    for target in targets:
        hits = [name for name in adaptable if name == target or name.rsplit(".", 1)[-1] == target]
        if not hits:
            problems.append(
                Problem(
                    "the model has no linear layer of this name",
                    key="targets",
                    value=target,
                    nearest=nearest(target, last),
                    fix=f"Its linear layers: {', '.join(last) or 'none'}.",
                )
            )
        found += hits
    if problems:
        raise TierformError(problems)
    return [name for name in adaptable if name in set(found)]


def watched_weights(model: nn.Module, targets: Sequence[str], layer: int | None) -> dict[str, Tensor]:
    """The target weights of one layer (counted from 0, negative from the end; None for all), by module name.

    A layer is told by the first number in a module's name.
    """
    names = target_modules(model, targets)
    if layer is not None:
        numbers = {name: _layer_of(name) for name in names}
        known = sorted({number for number in numbers.values() if number is not None})
        wanted = known[layer] if known and -len(known) <= layer < len(known) else None
        if wanted is None:
            raise TierformError(
                [
                    Problem(
                        "the targets have no such layer",
                        key="layer",
                        value=layer,
                        fix=f"Layers with targets: {', '.join(map(str, known)) or 'none'}.",
                    )
                ]
            )
        names = [name for name in names if numbers[name] == wanted]
    modules = dict(model.named_modules())
    return {name: modules[name].weight.detach() for name in names}


def _layer_of(name: str) -> int | None:
    match = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(match.group(1)) if match else None


def change_norm(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> float:
    """Frobenius norm of the change of the weights laid side by side."""
    return float(torch.sqrt(sum(((now[name] - before[name]).double() ** 2).sum() for name in now)))  # type: ignore[arg-type]


def choose_ranks(settings: LowRank, model: nn.Module, changes: Mapping[str, Tensor] | None = None) -> dict[str, int]:
    """The rank of every target matrix; `changes` (its change over the last window) is needed for "spectrum"."""
    names = target_modules(model, settings.targets)
    if settings.rank != "spectrum":
        return dict.fromkeys(names, settings.rank)
    if changes is None:
        raise TierformError([Problem("ranks from the spectrum need the weights' change over a window", key="rank")])
    arrays = {name: changes[name].float().cpu().numpy() for name in names}
    return ranks_of(arrays, settings.share, settings.least, settings.most)


def attach(model: nn.Module, settings: LowRank, ranks: Mapping[str, int]) -> nn.Module:
    """Inject adapters into `model` in place, freeze the rest but `also_train`; returns it."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingDependency("peft", "low-rank training", "train") from None
    parameters = [name for name, _ in model.named_parameters()]
    problems = [
        Problem(
            "no parameter's name begins so",
            key="also_train",
            value=prefix,
            nearest=nearest(prefix, {name.rsplit(".", 1)[0] for name in parameters}),
        )
        for prefix in settings.also_train
        if not any(_begins(name, prefix) for name in parameters)
    ]
    if problems:
        raise TierformError(problems)
    scale = settings.alpha / settings.rank if isinstance(settings.rank, int) else settings.alpha / 8
    first = next(iter(ranks.values()))
    config = LoraConfig(
        r=first,
        lora_alpha=_whole(scale * first),
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=_exactly(ranks),
        rank_pattern={f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != first},
        alpha_pattern={f"^{re.escape(name)}": scale * rank for name, rank in ranks.items() if rank != first},
    )
    kept = {name for name, one in model.named_parameters() if any(_begins(name, p) for p in settings.also_train)}
    adapted: nn.Module = inject_adapter_in_model(config, model)
    for name, parameter in adapted.named_parameters():
        plain = name.replace(".base_layer.", ".")
        parameter.requires_grad_("lora_" in name or plain in kept)
        parameter.grad = None
    return adapted


def _whole(value: float) -> Any:
    """PEFT names alpha an int and takes any number."""
    return value


def _exactly(ranks: Mapping[str, int]) -> str:
    """A pattern that PEFT matches against whole module names."""
    return "|".join(re.escape(name) for name in ranks)


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix if prefix.endswith(".") else prefix + ".")


def low_rank_copy(model: nn.Module, settings: LowRank, ranks: Mapping[str, int]) -> nn.Module:
    """A copy of `model` with adapters; the model itself is left as it is."""
    return attach(copy.deepcopy(model), settings, ranks)


def merged(model: nn.Module) -> nn.Module:
    """A copy of an adapted model with its adapters folded into plain weights and everything learning again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent = plain.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    return plain


def trainable_count(model: nn.Module) -> int:
    """Parameters that learn."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def parameter_count(model: nn.Module) -> int:
    """All parameters, adapters included."""
    return sum(parameter.numel() for parameter in model.parameters())


__all__: list[str] = [
    "LowRank",
    "attach",
    "change_norm",
    "choose_ranks",
    "low_rank_copy",
    "merged",
    "parameter_count",
    "target_modules",
    "trainable_count",
    "watched_weights",
]
