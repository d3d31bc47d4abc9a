"""What a chip does to a model's answers, as figures of a point beside its time and energy.

A space with the key ``accuracy`` has a job as any other, and a model with real weights that is computed on the job's
chip bit by bit (:func:`tierform.numerics.accuracy_table`, without adapters).  That takes seconds where a job takes
milliseconds: a point is measured only where its job is within all limits of its own, and chips with the same crossbars
that hold the same layers are measured once.  Limits: the model that answers need not be the one that is timed; its
instances are the same in every point, so that points differ by their chips alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, fail
from tierform.exploration.evaluator import JobEvaluator, Outcome, judge, put, timed
from tierform.exploration.space import Space, Values
from tierform.files import Document
from tierform.schema import FileModel, validate
from tierform.simulation.job import Job
from tierform.units import parse_quantity
from tierform.workload.precision import bits
from tierform.workload.task import resolved_precision

if TYPE_CHECKING:
    from torch import nn

    from tierform.numerics.formats import BitPlan
    from tierform.numerics.noise import Noise
    from tierform.numerics.tasks import TaskSet

ACCURACY = "accuracy."
PEAK, SMALL = "peak", "small"
Count = Annotated[int, Field(strict=True, ge=0, le=10**7)]
Share = Annotated[float, Field(ge=0, lt=1)]


class AccuracyFile(FileModel):
    """What answers, which questions, and how it is computed: the options of ``tierform accuracy``."""

    model: str = Field(SMALL, description="A folder, a package's name, or `small`: a model that is trained here.")
    data: str = Field(description="digits, tilted-digits, pairs, articles:FILE.txt, or a file of one's own.")
    test: str = Field("", description="A separate file for measuring.")
    part: Literal["validation", "test"] | None = Field(
        None, description="What is measured: where the data have a part to choose by, that one unless `test` is given."
    )
    limit: Count = Field(0, description="At most so many examples; 0 for all.")
    bits: str | int | None = Field(None, description="Weight and input bits: 8, W4A8, M8F4; the job's unless given.")
    noise: str = Field("programming-2pct", description="Noise files, comma-separated, or none.")
    temperature: str = Field("300 K", description="Of all tiles; `peak` for the hottest place of the job's chip.")
    after: str = Field("1 s", description="Time since the cells were programmed.")
    encoding: str = Field("", description="offset, differential or differential-digital; the chip's unless given.")
    adc_bits: Count | None = Field(None, description="0 for ideal; the chip's unless given.")
    scale: Literal["crossbar", "column"] = Field("crossbar", description="What shares a scale.")
    digital_channels: Count = Field(0, description="Input channels of each layer that stay digital.")
    digital_influence: Share = Field(0.0, description="Share of all products: channels by influence on the loss.")
    digital_weights: Share = Field(0.0, description="Share of single weights that stay digital.")
    instances: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(3, description="Noisy chips, averaged.")
    steps: Annotated[int, Field(strict=True, ge=1, le=10**6)] = Field(600, description="With `small`: its training.")
    fidelity: Literal["bits", "surrogate", "weights"] = Field("bits", description="As in `tierform accuracy`.")

    @property
    def changes(self) -> dict[str, Any]:
        """Single fields of the chip's crossbar format."""
        found: dict[str, Any] = {"encoding": self.encoding} if self.encoding else {}
        return found if self.adc_bits is None else {**found, "adc_bits": self.adc_bits}


def accuracy_problems(content: Mapping[str, Any], chip: object) -> list[Problem]:
    """What is wrong with the keys of an accuracy, alone and on a chip."""
    try:
        given = validate(AccuracyFile, Document(dict(content), ""))
    except TierformError as error:
        return list(error.problems)
    from tierform.numerics.chip_view import crossbar_format
    from tierform.numerics.formats import BitPlan

    found: list[Problem] = []
    for key, check in (
        ("bits", lambda: None if given.bits is None else BitPlan.parse(given.bits)),
        ("noise", lambda: _noise(given)),
        ("temperature", lambda: None if given.temperature == PEAK else parse_quantity(given.temperature, "K")),
        ("chip", lambda: crossbar_format(chip, **given.changes) if isinstance(chip, Chip) else None),
    ):
        try:
            check()
        except TierformError as error:
            found += [replace(problem, key=key) for problem in error.problems]
    if given.digital_influence and given.digital_channels:
        found.append(Problem("channels are chosen by one rule", key="digital_influence", value=given.digital_influence))
    return found


def _noise(given: AccuracyFile) -> Noise | None:
    from tierform.numerics.noise import load_noise

    return load_noise(given.noise, time_s=parse_quantity(given.after, "s", key="after"))


def _plan(given: AccuracyFile, job: Job) -> BitPlan:
    """The integer widths that are given, or those of the job's own number formats."""
    from tierform.numerics.formats import BitPlan

    if given.bits is not None:
        return BitPlan.parse(given.bits)
    assert job.task is not None
    formats = resolved_precision(job.task)
    names = [formats.weight_precision("attention"), formats.weight_precision("ffn"), formats.weights]
    attention, ffn, other = map(bits, names)
    try:
        return BitPlan(attention, ffn, other, bits(formats.activations))
    except TierformError as error:
        shown = f"weights {', '.join(dict.fromkeys(names))}; activations {formats.activations}"
        fix = "Give both in the job's task.precision, or accuracy.bits."
        fail(error.problems[0].what, key="task.precision", value=shown, fix=fix)


class AccuracyEvaluator(JobEvaluator):
    """Points of a space as jobs, and as chips that answer."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._timed = timed(space)
        self._models: dict[tuple[str, str, str, int], tuple[nn.Module, TaskSet]] = {}
        self._measured: dict[tuple[object, ...], dict[str, float]] = {}

    def settings(self, point: Values) -> AccuracyFile:
        """What is asked of a point."""
        content = dict(self.space.accuracy)
        for path, value in self.space.changes(point).items():
            if path.startswith(ACCURACY):
                content = put(content, path.removeprefix(ACCURACY).split("."), value)
        return validate(AccuracyFile, Document(content, str(Path(self.space.folder) / "accuracy")))

    def judged(self, point: Values, job: Job, figures: dict[str, float]) -> Outcome:
        """The outcome with the accuracy, or without it where the job alone is beyond its limits."""
        first = judge(self._timed, figures)
        if first.violation > 0:
            return first
        return judge(self.space, {**figures, **self.accuracy(self.settings(point), job, figures["peak_K"])})

    def accuracy(self, given: AccuracyFile, job: Job, peak_K: float) -> dict[str, float]:
        """The figures of :data:`ACCURACY_FIGURES`: means of the noisy instances, losses against float."""
        chip = job.chip
        assert isinstance(chip, Chip)
        from tierform.numerics.accuracy import accuracy_table
        from tierform.numerics.chip_view import crossbar_component, crossbar_format
        from tierform.numerics.digital import DigitalShare
        from tierform.numerics.placement import read_from_memory

        kelvin = peak_K if given.temperature == PEAK else parse_quantity(given.temperature, "K", key="temperature")
        if math.isnan(kelvin):
            fail("the job has no heat", key="accuracy.temperature", value=PEAK, fix="Give thermal: steady to the job.")
        plan = _plan(given, job)
        model, task = self._loaded(given)
        key = (
            json.dumps(given.model_dump(), sort_keys=True),
            plan,
            kelvin,
            crossbar_format(chip, **given.changes),
            crossbar_component(chip)[1].crossbars,
            read_from_memory(model, chip, plan),
        )
        if key not in self._measured:
            table = accuracy_table(
                model,
                task,
                chip,
                bits=plan,
                noise=_noise(given),
                temperature_K=kelvin,
                instances=given.instances,
                adapting=None,
                limit=given.limit,
                fidelity=given.fidelity,
                scale=given.scale,
                digital=DigitalShare(given.digital_channels, given.digital_weights),
                influence=given.digital_influence,
                **given.changes,
            )
            ideal, noisy = table.line("float"), table.line("noisy")
            self._measured[key] = {
                "accuracy": noisy.accuracy,
                "points_lost": 100 * (ideal.accuracy - noisy.accuracy),
                "nats_lost": noisy.loss - ideal.loss,
            }
        return self._measured[key]

    def _loaded(self, given: AccuracyFile) -> tuple[nn.Module, TaskSet]:
        from tierform.compression.checkpoints.questions import model_and_task

        asked = (given.model, given.data, given.test, given.steps)
        if asked not in self._models:
            names = [self._beside(name) for name in (given.model, given.data, given.test)]
            self._models[asked] = model_and_task(names[0], names[1], names[2], given.steps)
        model, task = self._models[asked]
        choosing = given.part == "validation" or (given.part is None and task.valid is not None)
        return model, task.choosing() if choosing else task

    def _beside(self, name: str) -> str:
        """A file or folder beside the space file, if there is one; an ``articles:`` file as well."""
        kind, colon, file = name.rpartition(":")
        beside = Path(self.space.folder) / file
        return f"{kind}{colon}{beside}" if file and name != SMALL and beside.exists() else name


__all__ = ["AccuracyEvaluator", "AccuracyFile", "accuracy_problems"]
