"""One compression to a target: sensitivities measured, formats chosen, compressed, measured, predicted, written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tierform.compression.formats import FLOAT, WeightFormat
from tierform.compression.jobs import CompressionJob, QualityLine, check_output, read_texts, skips_of
from tierform.compression.plan import MatrixPlan, Plan
from tierform.compression.target import (
    CANDIDATES,
    DecodeStep,
    Prediction,
    Target,
    bound_of,
    cheapest,
    expected_loss,
    plan_of,
    within,
)
from tierform.errors import Problem, TierformError, nearest

if TYPE_CHECKING:
    from pathlib import Path

METHODS = ("rtn", "gptq", "awq", "hadamard", "hadamard-gptq")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TargetJob:
    """A compression whose formats a target decides.

    `job` says the model, the method and the texts.  Times and energies are those of one decode step on `chip` with
    `runtime`, of `batch` sequences of `context` tokens.  `formats` may be chosen.  Compared is
    with `against`: one format for the matrices of all layers, and after a slash one for the head (else as it is).
    """

    job: CompressionJob
    target: str
    chip: str
    runtime: str = "ideal"
    batch: int = 1
    context: int = 128
    formats: tuple[str, ...] = CANDIDATES
    against: str = "int4-g128"
    leave_out: bool = False

    def check(self) -> None:
        """Every mistake that can be seen without the model, at once."""
        problems: list[Problem] = []
        checks: list[Callable[[], object]] = [
            partial(Target.parse, self.target),
            *(partial(WeightFormat.parse, text) for text in (*self.formats, *self.against.split("/")) if text),
            replace(self.job, format=self.formats[0] if self.formats else "int4").check,
        ]
        for check in checks:
            try:
                check()
            except TierformError as error:
                problems += [one for one in error.problems if one not in problems]
        if self.job.method not in METHODS:
            near = nearest(self.job.method, METHODS)
            fix = f"These round matrix by matrix: {', '.join(METHODS)}."
            problems.append(
                Problem("no target with this method", key="--method", value=self.job.method, nearest=near, fix=fix)
            )
        if self.job.format != "float" or self.job.density != "1":
            problems.append(Problem("the target chooses the formats", key="--format", fix="Name --formats instead."))
        if self.batch < 1 or self.context < 1:
            problems.append(
                Problem("at least one sequence of one token is needed", key="--batch", value=(self.batch, self.context))
            )
        if problems:
            raise TierformError(problems)


@dataclass(frozen=True, slots=True)
class Stored:
    """A model as it is stored: its plan, what is predicted of it, its quality where there is a test text."""

    name: str
    plan: Plan
    prediction: Prediction
    expected: float
    line: QualityLine | None = None


@dataclass(frozen=True, slots=True)
class TargetReport:
    """The model as it is, what it is compared with, and the chosen one (the last)."""

    job: TargetJob
    models: tuple[Stored, ...]
    folder: Path | None

    @property
    def chosen(self) -> Stored:
        """The model within the target."""
        return self.models[-1]

    def counts(self) -> dict[str, int]:
        """How many matrices have each format."""
        found: dict[str, int] = {}
        for one in self.chosen.plan.matrices.values():
            found[str(one.format)] = found.get(str(one.format), 0) + 1
        return dict(sorted(found.items()))

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "schema": "tierform.compression-target/1",
            "model": self.job.job.model,
            "method": self.job.job.method,
            "target": str(Target.parse(self.job.target)),
            "chip": self.job.chip,
            "runtime": self.job.runtime,
            "batch": self.job.batch,
            "context": self.job.context,
            "matrices_by_format": self.counts(),
            "models": [
                {
                    "name": one.name,
                    **asdict(one.prediction),
                    "expected_nats": one.expected,
                    "quality": None if one.line is None else one.line.quality.to_dict(),
                    "nats_lost": None if one.line is None or one.line.worse is None else asdict(one.line.worse),
                }
                for one in self.models
            ],
            "folder": None if self.folder is None else str(self.folder),
        }


def run_target(asked: TargetJob, progress: Progress | None = None) -> TargetReport:
    """Choose, compress, measure and write; TierformError before anything long begins where a mistake can be seen."""
    asked.check()
    from tierform.compression import compress as work
    from tierform.compression.checkpoints.folder import load_language_model, model_folder, plain_folder
    from tierform.compression.sensitivity import rises

    job, say = asked.job, progress or (lambda _what, _done, _total: None)
    source = plain_folder(model_folder(job.model))
    check_output(job, source)
    step = DecodeStep.of(source, asked.chip, asked.runtime, asked.batch, asked.context)
    windows, tested = read_texts(job, source)
    model, _ = load_language_model(source)
    formats = [WeightFormat.parse(text) for text in dict.fromkeys(asked.formats)]
    beside = [WeightFormat.parse(text) for text in asked.against.split("/")] if asked.against else []
    target, (original, _) = Target.parse(asked.target), _as_it_is(model, ())
    before = step.predict(original)
    skipped = skips_of(job, model, windows, say)
    whole, kinds = _as_it_is(model, skipped)
    losses = rises(model, windows, list(dict.fromkeys([*formats, FLOAT, *beside])), progress=say)
    exact = work.left_exact(list(losses), job.exact)

    def allowed(plan: Plan) -> dict[str, dict[WeightFormat, float]]:
        return {
            name: {form: losses[name][form] for form in ([FLOAT] if name in exact else formats)}
            for name in plan.matrices
        }

    models = [Stored("as it is", original, before, 0.0)]
    if beside:
        of_head = beside[1] if len(beside) > 1 else FLOAT
        alike = {name: of_head if kind == "head" else beside[0] for name, kind in kinds.items()}
        uniform = plan_of(whole, {name: FLOAT if name in exact else form for name, form in alike.items()})
        models.append(Stored(asked.against, uniform, step.predict(uniform), expected_loss(losses, uniform)))
    say("asking simulate", 0, 0)
    if asked.leave_out:
        from tierform.compression.target_skips import kinds_of, leave_out

        def reached(left_out: tuple[str, ...]) -> tuple[float, float]:
            plan, own_kinds = _as_it_is(model, left_out)
            _, _, least = cheapest(step, plan, own_kinds, allowed(plan), target)
            return least.of(target.kind), bound_of(target, before)

        skipped = leave_out(model, windows, skipped, kinds_of(model), reached, lambda text: say(text, 0, 0))
        whole, kinds = _as_it_is(model, skipped)
    plan, prediction = within(step, whole, kinds, allowed(whole), target, before)
    models.append(Stored(str(target), plan, prediction, expected_loss(losses, plan)))
    folder, made = None, []
    reference = _measured(model, tested, None, "as it was", say)
    for one in models[1:]:
        last = one is models[-1]
        if not last and tested is None:
            made.append(one)
            continue
        form = {name: matrix.format for name, matrix in one.plan.matrices.items()}
        recipe = work.Recipe(job.method, FLOAT, seed=job.seed, formats=form)
        texts = {name: str(value) for name, value in form.items()}
        mark = work.fingerprint(model, windows, {**recipe.describe(), "formats": texts, "skipped": one.plan.skipped})
        journal = work.LayerJournal(job.output if last else None, mark)
        smaller, _ = load_language_model(source)
        work.compress_model(smaller, windows, recipe, skipped=one.plan.skipped, journal=journal, progress=say)
        made.append(replace(one, line=_measured(smaller, tested, (model, reference), one.name, say)))
        if last and job.output is not None:
            folder = work.write_compressed(smaller, source, one.plan, job.output)
        journal.finish()
        del smaller
    return TargetReport(asked, (replace(models[0], line=reference), *made), folder)


def _as_it_is(model: Any, skipped: tuple[str, ...]) -> tuple[Plan, dict[str, str]]:
    """The plan that changes nothing (but leaves sublayers out), and the kind of each of its matrices."""
    from tierform.compression.sensitivity import head_site
    from tierform.compression.sites import anatomy

    parts = anatomy(model)
    left_out = {parts.sublayers[name].name for name in skipped}
    head = head_site(model)
    sites = [site for site in parts.sites if site.name not in left_out] + ([head] if head is not None else [])
    matrices = {site.name: MatrixPlan(site.shape, FLOAT) for site in sites}
    held = sum(one.shape[0] * one.shape[1] for one in matrices.values())
    gone = sum(parts.sublayers[name].shape[0] * parts.sublayers[name].shape[1] for name in skipped)
    exact = sum(parameter.numel() for parameter in model.parameters()) - held - gone
    kinds = {site.name: "+".join(sorted(site.parts)) for site in sites}
    return Plan(type(model).__name__, "target", matrices, skipped, 2 * exact), kinds


def _measured(
    model: Any, tested: Any, beside: tuple[Any, QualityLine | None] | None, name: str, say: Progress
) -> QualityLine | None:
    from tierform.compression.quality import measure

    if tested is None:
        return None
    reference, whole = beside if beside is not None else (None, None)
    found = measure(model, tested, reference, progress=lambda done: say(f"measuring {name}", done, len(tested)))
    return QualityLine(name, found, None if whole is None else found.worse_than(whole.quality))
