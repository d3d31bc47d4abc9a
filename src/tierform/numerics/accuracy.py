"""How accurate a model is on a chip: in float, quantized, on noisy chip instances, and with adapters.

The model in float; on the chip without noise; on noisy chip instances; then, after LoRA fine-tuning with the same steps
and data, adapters trained and run on a noise-free chip (the ideal that a loss is counted from), the same adapters in
float and on noisy instances, and adapters trained with noise on noisy instances (only these hold the large weights,
where `peak_rank` asks for it).  A model that was pre-trained without the task's labels means nothing before fine-tuning
and has the lines after it only.  Instances that adapters trained on are never measured.  Every run is kept; intervals
are Student's t at 95 % over runs (a run is one seed on one instance).  Losses are paired: each noisy run against the
ideal of its own seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tierform.errors import fail
from tierform.numerics.adapters import TRAINING_INSTANCES, Adapting
from tierform.numerics.chip_view import crossbar_format
from tierform.numerics.digital import DigitalShare
from tierform.numerics.emulation import describe, emulate, new_chip_instance
from tierform.numerics.formats import BitPlan, Quantizer
from tierform.numerics.influence import share_by_influence
from tierform.numerics.noise import Noise, load_noise
from tierform.numerics.placement import static_linears
from tierform.numerics.tasks import TaskSet, evaluate
from tierform.provenance import Assumption

if TYPE_CHECKING:
    from tierform.chip.description import Chip
    from tierform.numerics.emulation import Temperatures

SCHEMA = "tierform.accuracy/1"
Progress = Callable[[str, int, int], None]
IDEAL = "adapted, ideal device"
DIGITAL = "the same in float"
UNAWARE = "adapted without noise, noisy device"
AWARE = "adapted with noise, noisy device"
_ADAPTING = Adapting()
CALIBRATION_EXAMPLES = 8


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

    def to_dict(self) -> dict[str, object]:
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
    return Line(
        name=name,
        accuracy=mean,
        half_width=half,
        loss=loss,
        runs=tuple(runs),
        against=ideal.name,
        points_lost=lost,
        points_half_width=lost_half,
    )


def accuracy_table(
    model: nn.Module,
    task: TaskSet,
    chip: Chip | str | Path,
    *,
    bits: str | int | BitPlan = 8,
    noise: Noise | str | Sequence[str] | None = "programming-2pct",
    temperature_K: Temperatures = 300.0,
    instances: int = 3,
    first_instance: int = 1,
    seeds: int = 3,
    adapting: Adapting | None = _ADAPTING,
    limit: int = 0,
    quantizer: Quantizer | None = None,
    fidelity: str = "bits",
    scale: str = "crossbar",
    digital: DigitalShare | None = None,
    influence: float = 0.0,
    calibrated: bool = True,
    progress: Progress | None = None,
    on_run: Callable[[str, Run], None] | None = None,
    **changes: Any,
) -> AccuracyTable:
    """The table of one model on one chip; the model is not changed.

    `instances` noisy chips, numbered from `first_instance`, are measured for each of `seeds` trainings of adapters
    (`adapting` None: no adapters).  `limit` bounds the test examples.  `fidelity` is what is measured with: ``bits``
    (every conversion) or ``weights`` (the cells' errors alone); `adapting` has its own for training.
    `scale` and `digital` are as :func:`tierform.numerics.emulate` takes them; `influence` is a share of all products:
    of so many, input channels stay digital, by what their errors would cost the loss of training examples.  Unless
    `calibrated` is False, training examples tell how large each input is.  `progress(what, done, total)` reports, and
    `on_run(line, run)` gives every run as soon as it is there.  Other options as :func:`tierform.numerics.emulate`
    takes them.
    """
    if instances < 1 or seeds < 1:
        fail("at least one instance and one seed are needed", key="instances", value=(instances, seeds))
    if not 1 <= first_instance <= TRAINING_INSTANCES - instances:
        fail("measured instances have numbers below those of training", key="first_instance", value=first_instance)
    trained_before = task.pretrained is None
    if adapting is None and not trained_before:
        fail("the model's head is new: there is nothing to measure without adapters", key=task.name)
    plan = BitPlan.parse(bits)
    loaded = load_noise(noise) if noise is not None and not isinstance(noise, Noise) else noise
    plain_runs = 2 + instances if trained_before else 0
    total = plain_runs + (seeds * (4 + 2 * instances) if adapting is not None else 0)
    done = 0

    def report(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(what, done, total)
        done += 1

    if influence:
        form = crossbar_format(chip, **changes)
        drawn = next(task.batches(CALIBRATION_EXAMPLES, 0))
        digital = share_by_influence(
            model,
            lambda network: network(**drawn).loss,
            influence,
            rows=form.rows,
            outputs=1 if scale == "column" else form.weights_per_row,
            beside=digital,
        )

    def build(with_noise: bool) -> nn.Module:
        return emulate(
            model,
            chip,
            bits=plan,
            noise=loaded if with_noise else None,
            temperature_K=temperature_K,
            quantizer=quantizer,
            fidelity=fidelity,
            scale=scale,
            digital=digital,
            calibration=calibration if calibrated else None,
            **changes,
        )

    def calibration(whole: nn.Module) -> None:
        batch = next(task.batches(CALIBRATION_EXAMPLES, 0))
        whole(**batch)

    def measure(line: str, candidate: nn.Module, seed: int, numbers: Sequence[int]) -> list[Run]:
        runs = []
        for number in numbers:
            report(line if number < 0 else f"{line}, instance {number}")
            if number >= 0:
                new_chip_instance(candidate, number)
            score = evaluate(candidate, task, limit=limit)
            runs.append(Run(seed, number, score.accuracy, score.loss))
            if on_run is not None:
                on_run(line, runs[-1])
        return runs

    measured = range(first_instance, first_instance + instances)
    lines: list[Line] = []
    noisy = build(loaded is not None)
    layers = tuple(describe(noisy))
    if trained_before:
        lines.append(make_line("float", measure("float", model, 0, [-1])))
        lines.append(make_line("quantized", measure("quantized", build(False), 0, [-1]), lines[0]))
        lines.append(make_line("noisy", measure("noisy", noisy, 0, measured), lines[0]))
    if adapting is not None:
        lines += _adapted(model, build, measure, report, task, loaded is not None, seeds, measured, adapting)
    settings = {
        "instances": instances,
        "first_instance": first_instance,
        "seeds": seeds,
        "limit": limit,
        "measured_fidelity": fidelity,
        "scale": scale,
        "layers_not_in_crossbars": len(static_linears(noisy)) - len(layers),
        "digital_channels": digital.channels if digital else 0,
        "digital_weights": digital.weights if digital else 0.0,
        "digital_influence": influence,
        **(asdict(adapting) if adapting is not None else {}),
        "temperature_K": temperature_K if isinstance(temperature_K, (int, float)) else "by tile",
        **{key: value for key, value in changes.items() if isinstance(value, (int, float, str))},
    }
    examples = task.test_examples
    return AccuracyTable(
        task=task.name,
        unit=task.unit,
        examples=min(limit, examples) if limit else examples,
        chip=chip if isinstance(chip, str) else chip.name,
        bits=str(plan),
        noise=loaded.names if loaded else (),
        lines=tuple(lines),
        layers=layers,
        settings=settings,
        assumptions=loaded.assumptions() if loaded else (),
    )


def _adapted(
    model: nn.Module,
    build: Callable[[bool], nn.Module],
    measure: Callable[[str, nn.Module, int, Sequence[int]], list[Run]],
    report: Callable[[str], None],
    task: TaskSet,
    noisy: bool,
    seeds: int,
    measured: Sequence[int],
    adapting: Adapting,
) -> list[Line]:
    """Adapters of the ideal device in float, on it, and on noisy instances; and noise-aware ones on noisy instances."""
    runs: dict[str, list[Run]] = {IDEAL: [], DIGITAL: [], UNAWARE: [], AWARE: []}
    usual = replace(adapting, peak_rank=0)
    peaks = adapting.peaks(build(False)) if adapting.peak_rank else {}
    for seed in range(seeds):
        report(f"training adapters, ideal device, seed {seed}")
        plain = usual.attach(build(False), seed)
        usual.train(plain, task, noisy=False, seed=seed)
        runs[IDEAL] += measure(IDEAL, plain, seed, [-1])
        learned = _trained(plain)
        target = usual.attach(copy.deepcopy(model), seed)
        target.load_state_dict(learned, strict=False)
        runs[DIGITAL] += measure(DIGITAL, target, seed, [-1])
        target = usual.attach(build(noisy), seed)
        target.load_state_dict(learned, strict=False)
        runs[UNAWARE] += measure(UNAWARE, target, seed, measured)
        report(f"training adapters, noisy device, seed {seed}")
        target = adapting.attach(build(noisy), seed, peaks)
        adapting.train(target, task, noisy=noisy, seed=seed)
        runs[AWARE] += measure(AWARE, target, seed, measured)
    reference = make_line(IDEAL, runs[IDEAL])
    return [reference, *(make_line(name, runs[name], reference) for name in (DIGITAL, UNAWARE, AWARE))]


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name in wanted}
