"""Tasks: what is done with a model.

:class:`Inference` (prefill, decode with a growing KV cache, or both), :class:`Step` (one pass over any sequences, as
serving engines make them), :class:`FineTuning` and :class:`Training`, with the method that says which parameters learn:
:class:`Full`, :class:`LoRA`, :class:`QLoRA`, :class:`Adapters`, :class:`BitFit`, :class:`LastLayers`.  A training task
is one optimizer step; `steps` scales totals and lifetime.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import ClassVar, Literal

from tierform.errors import Problem, TierformError, nearest
from tierform.workload.adapter_methods import IA3, AdapterBatch, DoRA, GaLore, LoRAFA, PromptTuning, VeRA
from tierform.workload.decoding import Decoding
from tierform.workload.expert_store import ExpertStore
from tierform.workload.kv_policy import KVPolicy
from tierform.workload.offloaded import OF_INFERENCE, OF_TRAINING, offload_problems
from tierform.workload.precision import PrecisionPlan
from tierform.workload.recomputation import recomputation_problems
from tierform.workload.targets import house_targets

SAVABLE = ("embedding", "head", "normalization")
OPTIMIZERS = ("adamw", "adamw-8bit", "adafactor", "muon", "sgd", "sgd-momentum")
HOST = "pcie5-dram"


@dataclass(frozen=True, slots=True)
class Full:
    """Every parameter learns."""

    has_rank: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class LoRA:
    """Low-rank adapters beside frozen matrices: W x + B A x with A (rank, in), B (out, rank)  (Hu et al., 2021).

    `targets` may be named as in Hugging Face's models (``q_proj``, ``c_attn``, ``all-linear``); they are kept under
    the house's names (:mod:`tierform.workload.targets`).  `modules_to_save` names parts that learn fully beside the
    adapters: embedding, head, normalization.
    """

    has_rank: ClassVar[bool] = True

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_positive(self, "rank")
        object.__setattr__(self, "targets", house_targets(self.targets))
        for name in self.modules_to_save:
            _check_choice(name, SAVABLE, "modules_to_save")


@dataclass(frozen=True, slots=True)
class QLoRA:
    """LoRA beside weights quantized to `weights`, dequantized for each product  (Dettmers et al., 2023)."""

    has_rank: ClassVar[bool] = True

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")
    weights: str = "nf4"

    def __post_init__(self) -> None:
        _check_positive(self, "rank")
        object.__setattr__(self, "targets", house_targets(self.targets))


@dataclass(frozen=True, slots=True)
class Adapters:
    """Two bottleneck layers in every block, after attention and after the FFN  (Houlsby et al., 2019)."""

    has_rank: ClassVar[bool] = False

    bottleneck: int = 64

    def __post_init__(self) -> None:
        _check_positive(self, "bottleneck")


@dataclass(frozen=True, slots=True)
class BitFit:
    """Only biases (and normalization shifts) learn  (Ben Zaken et al., 2021)."""

    has_rank: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class LastLayers:
    """Only the last `layers` blocks and the head learn; nothing propagates below them."""

    has_rank: ClassVar[bool] = False

    layers: int = 2

    def __post_init__(self) -> None:
        _check_positive(self, "layers")


Method = Full | LoRA | QLoRA | DoRA | LoRAFA | VeRA | IA3 | PromptTuning | GaLore | Adapters | BitFit | LastLayers


@dataclass(frozen=True, slots=True)
class Inference:
    """`batch` prompts of `sequence` tokens, then `decode` generated tokens each; `prefill` may be left out.

    `precision` None, here and in the other tasks: the chip's own formats, or :func:`resolved_precision` without one.
    `decoding` makes several tokens in a step; `kv` says what the cache keeps, `experts` where a mixture's wait.
    """

    batch: int = 1
    sequence: int = 512
    decode: int = 0
    prefill: bool = True
    precision: PrecisionPlan | None = None
    offload: tuple[str, ...] = ()
    host: str = HOST
    adapters: AdapterBatch | None = None
    decoding: Decoding | None = None
    kv: KVPolicy | None = None
    experts: ExpertStore | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "batch", "sequence")
        _check_positive(self, "decode", minimum=0)
        _raise([*offload_problems(self.offload, OF_INFERENCE), *_offloaded_twice(self)])


def _offloaded_twice(task: Inference) -> list[Problem]:
    """What a task sends away whole and in part."""
    fix, problems = "Give one of the two.", []
    if task.kv is not None and task.kv.offload and "kv-cache" in task.offload:
        what = "the whole cache is offloaded, and a share of it, too"
        problems.append(Problem(what, key="offload", value=task.kv.offload, fix=fix))
    if task.experts is not None and task.experts.cached < 1 and "weights" in task.offload:
        what = "all weights are offloaded, and a share of the experts is kept near, too"
        problems.append(Problem(what, key="cached", value=task.experts.cached, fix=fix))
    return problems


@dataclass(frozen=True, slots=True)
class SequenceGroup:
    """`sequences` equal sequences: `new` tokens of each go through the model, `past` ones are in its KV cache."""

    sequences: int = 1
    new: int = 1
    past: int = 0

    def __post_init__(self) -> None:
        _check_positive(self, "sequences", "new")
        _check_positive(self, "past", minimum=0)


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of the model over a list of sequence groups.

    Decoding is (batch, 1, context), a prompt (batch, tokens, 0), a chunk of a prompt (1, chunk, what came before), the
    verification of k drafted tokens (batch, k, context); a mixed batch has several groups.  Groups of equal lengths
    become one.  `logits` are computed of each sequence's last token, or of all new tokens (verification needs them).
    """

    groups: tuple[SequenceGroup, ...]
    logits: Literal["last", "all"] = "last"
    precision: PrecisionPlan | None = None
    adapters: AdapterBatch | None = None
    kv: KVPolicy | None = None
    experts: ExpertStore | None = None

    def __post_init__(self) -> None:
        _check_choice(self.logits, ("last", "all"), "logits")
        if not self.groups:
            raise TierformError([Problem("at least one group of sequences is needed", key="groups")])
        merged: dict[tuple[int, int], int] = {}
        for group in self.groups:
            merged[group.new, group.past] = merged.get((group.new, group.past), 0) + group.sequences
        equal = tuple(SequenceGroup(number, new, past) for (new, past), number in merged.items())
        object.__setattr__(self, "groups", equal)

    @property
    def batch(self) -> int:
        """Sequences of all groups."""
        return sum(group.sequences for group in self.groups)

    @property
    def sequence(self) -> int:
        """The longest sequence, its new tokens included."""
        return max(group.new + group.past for group in self.groups)


@dataclass(frozen=True, slots=True)
class FineTuning:
    """One optimizer step of adapting a trained model, on `batch` sequences of `sequence` tokens.

    `fused_loss` makes logits, loss and their gradients a piece at a time: they are never whole in memory.
    `fused_update` updates each layer's weights as soon as their gradients are there, which are then dropped (Lv et al.,
    2023).  `recomputation` may name its layers (:mod:`tierform.workload.recomputation`); `offload` names parts that
    wait in the memory of a `host` of the library.
    """

    method: Method = field(default_factory=Full)
    batch: int = 1
    sequence: int = 512
    steps: int = 1
    optimizer: Literal["adamw", "adamw-8bit", "adafactor", "muon", "sgd", "sgd-momentum"] = "adamw"
    gradient_accumulation: int = 1
    recomputation: str = "none"
    precision: PrecisionPlan | None = None
    fused_loss: bool = False
    fused_update: bool = False
    offload: tuple[str, ...] = ()
    host: str = HOST

    def __post_init__(self) -> None:
        _check_positive(self, "batch", "sequence", "steps", "gradient_accumulation")
        _check_choice(self.optimizer, OPTIMIZERS, "optimizer")
        _raise([*recomputation_problems(self.recomputation), *offload_problems(self.offload, OF_TRAINING)])


@dataclass(frozen=True, slots=True)
class Training(FineTuning):
    """One optimizer step of training from random weights; the same computation as full fine-tuning."""


@dataclass(frozen=True, slots=True)
class Distillation(FineTuning):
    """One optimizer step of a student that learns from a teacher: the same as fine-tuning, and the teacher's forward.

    `teacher` names a model of the library or a folder; it has the student's vocabulary and makes logits of all tokens.
    `teacher_weights` is the format of its weights (empty: as the task's).
    """

    teacher: str = ""
    teacher_weights: str = ""

    def __post_init__(self) -> None:
        FineTuning.__post_init__(self)
        if not self.teacher:
            raise TierformError([Problem("a student needs a teacher", key="teacher", fix="Name a model.")])


Task = Inference | Step | FineTuning | Training | Distillation

# Fields that came later, with their defaults: they change no description and no hash where they are not used.
_LATER: dict[str, object] = {
    "fused_loss": False,
    "fused_update": False,
    "offload": [],
    "host": HOST,
    "adapters": None,
    "decoding": None,
    "kv": None,
    "experts": None,
    "teacher_weights": "",
}
# The names that files and commands use.
TASKS: dict[str, type] = {"inference": Inference, "step": Step, "finetuning": FineTuning, "training": Training}
TASKS["distillation"] = Distillation
_METHODS: dict[str, type[Method]] = {
    "full": Full,
    "lora": LoRA,
    "qlora": QLoRA,
    "dora": DoRA,
    "lora-fa": LoRAFA,
    "vera": VeRA,
    "ia3": IA3,
    "prompt": PromptTuning,
    "galore": GaLore,
    "adapters": Adapters,
    "bitfit": BitFit,
    "last-layers": LastLayers,
}
METHODS: dict[str, type] = {**_METHODS}
RANKED = frozenset(name for name, method in _METHODS.items() if method.has_rank)


def is_training(task: Task) -> bool:
    """True for tasks with a backward pass."""
    return isinstance(task, FineTuning)


def resolved_precision(task: Task) -> PrecisionPlan:
    """The task's number formats; where it states none, bf16 with 32-bit master weights and optimizer states."""
    if task.precision is not None:
        return task.precision
    return PrecisionPlan() if is_training(task) else PrecisionPlan(master_weights=None)


def _check_positive(owner: object, *names: str, minimum: int = 1) -> None:
    problems = []
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            problems.append(Problem(f"must be a whole number of at least {minimum}", key=name, value=value))
    if problems:
        raise TierformError(problems)


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise TierformError(problems)


def _check_choice(value: str, choices: tuple[str, ...], key: str) -> None:
    if value not in choices:
        raise TierformError(
            [
                Problem(
                    "not a known choice",
                    key=key,
                    value=value,
                    nearest=nearest(str(value), choices),
                    fix=f"Choose one of {', '.join(choices)}.",
                )
            ]
        )


def describe(task: Task) -> dict[str, object]:
    """The task as plain data, for reports and JSON; what is not used of the later fields is left out."""
    found = {item.name: _plain(getattr(task, item.name)) for item in fields(task)}
    used = {name: value for name, value in found.items() if name not in _LATER or value != _LATER[name]}
    return {"task": type(task).__name__, **used}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        own = {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
        return {"name": type(value).__name__, **own}
    return value
