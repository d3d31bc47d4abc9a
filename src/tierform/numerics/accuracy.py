"""How accurate a model is on a chip: in float, quantized, on noisy chip instances, and with adapters.

Six lines: the model in float; on the chip without noise; on noisy chip instances; then, after LoRA fine-tuning with the
same steps and data, three more: adapters trained and run on a noise-free chip (the ideal that a loss is counted from),
the same adapters on noisy instances, and adapters trained with noise on noisy instances.  Instances that adapters
trained on are never measured.  Every run is kept; intervals are Student's t at 95 % over runs (a run is one seed on one
instance).  Losses are paired: each noisy run against the ideal of its own seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tierform.errors import fail
from tierform.numerics.adapters import attach_lora, train_adapters
from tierform.numerics.emulation import describe, emulate, new_chip_instance
from tierform.numerics.formats import BitPlan, Quantizer
from tierform.numerics.noise import Noise, load_noise
from tierform.numerics.tasks import TaskSet, evaluate
from tierform.provenance import Assumption

if TYPE_CHECKING:
    from tierform.chip.description import Chip

SCHEMA = "tierform.accuracy/1"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation: the seed of its training, the chip instance, accuracy, mean loss."""

    seed: int
    instance: int
    accuracy: float
    loss: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table; `half_width` is that of the 95 % interval of the mean, 0 for a single run.

    `points_lost` (and its half width) is against the line named `against`, run by run, in percentage points.
    """

    name: str
    accuracy: float
    half_width: float
    loss: float
    runs: tuple[Run, ...]
    against: str = ""
    points_lost: float | None = None
    points_half_width: float = 0.0


@dataclass(frozen=True)
class AccuracyTable:
    """The lines, what was run, and on what evidence."""

    task: str
    unit: str
    examples: int
    chip: str
    bits: str
    noise: tuple[str, ...]
    lines: tuple[Line, ...]
    layers: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()

    def line(self, name: str) -> Line:
        """The line of a name; TierformError with the nearest when there is none."""
        for line in self.lines:
            if line.name == name:
                return line
        return fail("no such line", value=name, choices=[line.name for line in self.lines])

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t over the values); half width 0 for one value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    from scipy.special import stdtrit

    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))


def make_line(name: str, runs: Sequence[Run], ideal: Line | None = None) -> Line:
    """A line from its runs, with losses against `ideal`'s run of the same seed (or its only run)."""
    mean, half = interval([run.accuracy for run in runs])
    loss = sum(run.loss for run in runs) / len(runs)
    if ideal is None:
        return Line(name, mean, half, loss, tuple(runs))
    by_seed = {run.seed: run.accuracy for run in ideal.runs}
    only = ideal.runs[0].accuracy
    lost, lost_half = interval([100 * (by_seed.get(run.seed, only) - run.accuracy) for run in runs])
    return Line(name, mean, half, loss, tuple(runs), ideal.name, lost, lost_half)


def accuracy_table(
    model: nn.Module,
    task: TaskSet,
    chip: Chip | str | Path,
    *,
    bits: str | int | BitPlan = 8,
    noise: Noise | str | Sequence[str] | None = "programming-2pct",
    temperature_K: Any = 300.0,
    instances: int = 3,
    seeds: int = 3,
    adapt: bool = True,
    steps: int = 200,
    batch: int = 32,
    learning_rate: float = 1e-3,
    rank: int = 8,
    targets: Sequence[str] = ("q", "v"),
    resample_every: int = 10,
    limit: int = 0,
    quantizer: Quantizer | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> AccuracyTable:
    """The table of one model on one chip; the model is not changed.

    `instances` noisy chips are measured for each of `seeds` trainings of adapters.  `limit` bounds the test examples.
    `progress(what, done, total)` reports.  Other options as :func:`tierform.numerics.emulate` takes them.
    """
    if instances < 1 or seeds < 1:
        fail("at least one instance and one seed are needed", key="instances", value=(instances, seeds))
    plan = BitPlan.parse(bits)
    loaded = load_noise(noise) if noise is not None and not isinstance(noise, Noise) else noise
    total = 2 + instances + (seeds * (2 + 1 + 2 * instances) if adapt else 0)
    done = 0

    def report(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(what, done, total)
        done += 1

    def build(with_noise: bool) -> nn.Module:
        return emulate(
            model, chip, bits=plan, noise=loaded if with_noise else None, temperature_K=temperature_K,
            quantizer=quantizer, **changes,
        )  # fmt: skip

    def measure(candidate: nn.Module, seed: int, numbers: Sequence[int]) -> list[Run]:
        runs = []
        for number in numbers:
            report(f"instance {number}")
            if number >= 0:
                new_chip_instance(candidate, number)
            score = evaluate(candidate, task, limit=limit)
            runs.append(Run(seed, number, score.accuracy, score.loss))
        return runs

    measured = range(1, instances + 1)
    lines = [make_line("float", measure(model, 0, [-1]))]
    exact = build(False)
    lines.append(make_line("quantized", measure(exact, 0, [-1]), lines[0]))
    noisy = build(loaded is not None)
    lines.append(make_line("noisy", measure(noisy, 0, measured), lines[0]))
    layers = tuple(describe(noisy))
    if adapt:
        lines += _adapted(
            build, measure, report, task, loaded is not None, seeds, measured,
            {"steps": steps, "learning_rate": learning_rate, "resample_every": resample_every}, batch,
            {"rank": rank, "targets": tuple(targets)},
        )  # fmt: skip
    settings = {
        "instances": instances, "seeds": seeds, "steps": steps, "batch": batch, "learning_rate": learning_rate,
        "rank": rank, "targets": list(targets), "resample_every": resample_every, "limit": limit,
        "temperature_K": temperature_K if isinstance(temperature_K, (int, float)) else "by tile",
        **{key: value for key, value in changes.items() if isinstance(value, (int, float, str))},
    }  # fmt: skip
    examples = task.test_examples
    return AccuracyTable(
        task.name, task.unit, min(limit, examples) if limit else examples, getattr(chip, "name", str(chip)), str(plan),
        loaded.names if loaded else (), tuple(lines), layers, settings, loaded.assumptions() if loaded else (),
    )  # fmt: skip


def _adapted(
    build: Callable[[bool], nn.Module],
    measure: Callable[[nn.Module, int, Sequence[int]], list[Run]],
    report: Callable[[str], None],
    task: TaskSet,
    noisy: bool,
    seeds: int,
    measured: Sequence[int],
    training: dict[str, Any],
    batch: int,
    lora: dict[str, Any],
) -> list[Line]:
    """Adapters on the ideal device, the same on noisy instances, and noise-aware ones on noisy instances."""
    ideal: list[Run] = []
    unaware: list[Run] = []
    aware: list[Run] = []
    for seed in range(seeds):
        report(f"training adapters, ideal device, seed {seed}")
        plain = attach_lora(build(False), seed=seed, **lora)
        train_adapters(plain, task.batches(batch, seed), seed=seed, noisy=False, **training)
        ideal += measure(plain, seed, [-1])
        learned = _trained(plain)
        target = attach_lora(build(noisy), seed=seed, **lora)
        target.load_state_dict(learned, strict=False)
        unaware += measure(target, seed, measured)
        report(f"training adapters, noisy device, seed {seed}")
        target = attach_lora(build(noisy), seed=seed, **lora)
        train_adapters(target, task.batches(batch, seed), seed=seed, noisy=noisy, **training)
        aware += measure(target, seed, measured)
    reference = make_line("adapted, ideal device", ideal)
    return [
        reference,
        make_line("adapted without noise, noisy device", unaware, reference),
        make_line("adapted with noise, noisy device", aware, reference),
    ]


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name in wanted}
