"""One compression as it is asked for on a command line: loaded, checked, compressed, measured, written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierform.compression.formats import DENSE, FLOAT, Density, WeightFormat
from tierform.compression.methods import METHODS, Wanted, check_method
from tierform.compression.plan import MatrixPlan, Plan
from tierform.compression.quality import Estimate, Quality
from tierform.compression.skipping import RULES
from tierform.errors import Problem, TierformError, fail, nearest

Progress = Callable[[str, int, int], None]
WHOLE_MODEL = ("skip", "structured", "distill")


@dataclass(frozen=True, slots=True)
class CompressionJob:
    """What is asked for; see ``tierform compress --help``."""

    model: str
    method: str
    text: Path
    format: str = "float"
    density: str = "1"
    test: Path | None = None
    output: Path | None = None
    windows: int = 32
    test_windows: int = 6
    length: int = 256
    skip: int = 0
    skip_by: str = "cosine"
    ffn: float = 1.0
    heads: float = 1.0
    layers: int = 0
    steps: int = 100
    exact: tuple[str, ...] = ()
    seed: int = 0

    def check(self) -> None:
        """Every mistake that can be seen without the model, at once."""
        problems: list[Problem] = []
        form, density = FLOAT, DENSE
        try:
            form = WeightFormat.parse(self.format)
        except TierformError as error:
            problems += error.problems
        try:
            density = Density.parse(self.density)
        except TierformError as error:
            problems += error.problems
        if self.method in METHODS:
            try:
                check_method(self.method, Wanted(form, density))
            except TierformError as error:
                problems += error.problems
        elif self.method not in WHOLE_MODEL:
            known = [*METHODS, *WHOLE_MODEL]
            problems.append(
                Problem(
                    "no such method",
                    key="--method",
                    value=self.method,
                    nearest=nearest(self.method, known),
                    fix=f"Known: {', '.join(known)}.",
                )
            )
        for method, keys, given in (
            ("skip", "--skip", self.skip > 0),
            ("structured", "--ffn or --heads", self.ffn < 1 or self.heads < 1),
            ("distill", "--layers", self.layers > 0),
        ):
            if self.method == method and not given:
                problems.append(Problem(f"{method} needs {keys}", key="--method", value=self.method))
            if given and self.method != method and method != "skip":
                problems.append(Problem(f"{keys} is for the method {method}", key="--method", value=self.method))
        if self.method in WHOLE_MODEL and (form.kind != "float" or not density.dense):
            problems.append(
                Problem(
                    f"{self.method} neither rounds nor thins matrices",
                    key="--format",
                    value=self.format,
                    fix="Write the smaller model with -o, then compress that.",
                )
            )
        if self.skip_by not in RULES:
            problems.append(
                Problem("unknown rule", key="--skip-by", value=self.skip_by, nearest=nearest(self.skip_by, RULES))
            )
        for path, key in ((self.text, "--data"), (self.test, "--test")):
            if path is not None and not path.is_file():
                problems.append(Problem("no such file", key=key, value=str(path)))
        if problems:
            raise TierformError(problems)


@dataclass(frozen=True, slots=True)
class QualityLine:
    """One model's quality, and nats lost against the model as it was."""

    name: str
    quality: Quality
    worse: Estimate | None = None


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """The plan, the qualities, the sizes, and where the model was written."""

    job: CompressionJob
    plan: Plan
    lines: tuple[QualityLine, ...]
    before_B: int
    folder: Path | None

    @property
    def test_windows(self) -> int:
        """Windows measured."""
        return len(self.lines[0].quality.losses) if self.lines else 0

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return self.job.length

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "schema": "tierform.compression/1",
            "model": self.job.model,
            "method": self.plan.method,
            "bits_per_weight": self.plan.bits_per_weight,
            "size_B": round(self.plan.size_B),
            "float16_B": self.before_B,
            "skipped": list(self.plan.skipped),
            "quality": [
                {
                    "name": line.name,
                    **line.quality.to_dict(),
                    "nats_lost": None if line.worse is None else line.worse.mean,
                    "nats_lost_half_width": None if line.worse is None else line.worse.half_width,
                }
                for line in self.lines
            ],
            "folder": None if self.folder is None else str(self.folder),
        }


def run_job(job: CompressionJob, progress: Progress | None = None) -> CompressionReport:
    """Compress, measure and write; TierformError before anything long begins where a mistake can be seen."""
    job.check()
    from tierform.compression import compress as work
    from tierform.compression.checkpoints.folder import load_language_model, load_network, model_folder
    from tierform.compression.quality import measure
    from tierform.compression.sites import anatomy

    say = progress or (lambda _what, _done, _total: None)
    source = model_folder(job.model)
    check_output(job, source)
    windows, tested = read_texts(job, source)
    model, _ = load_language_model(job.model)
    if getattr(model.config, "max_position_embeddings", job.length) < job.length:
        fail("the model has fewer positions", key="--length", value=job.length)
    parts = anatomy(model)
    before_B = 2 * sum(parameter.numel() for parameter in model.parameters())
    skipped = skips_of(job, model, windows, say)
    if job.method in METHODS:
        recipe = work.Recipe(
            job.method, WeightFormat.parse(job.format), Density.parse(job.density), tuple(job.exact), job.seed
        )
        mark = work.fingerprint(model, windows, {**recipe.describe(), "skipped": skipped})
        journal = work.LayerJournal(job.output, mark)
        plan = work.compress_model(model, windows, recipe, skipped=skipped, journal=journal, progress=say)
    else:
        journal = work.LayerJournal(None, "")
        model, plan = _whole_model(job, model, windows, skipped, say)
    lines: tuple[QualityLine, ...] = ()
    if tested is not None:
        count = len(tested)
        hooks = work.round_inputs(model) if job.method == "smoothquant" else []
        reference = load_network(job.model, "AutoModelForCausalLM")
        smaller = measure(model, tested, reference, progress=lambda done: say("measuring", done, count))
        for hook in hooks:
            hook.remove()
        whole = measure(reference, tested, progress=lambda done: say("measuring the model as it was", done, count))
        lines = (QualityLine("as it was", whole), QualityLine("compressed", smaller, smaller.worse_than(whole)))
    folder = None
    if job.output is not None:
        folder = work.write_compressed(model, source, plan, job.output)
    journal.finish()
    del parts
    return CompressionReport(job, plan, lines, before_B, folder)


def check_output(job: CompressionJob, source: Path) -> None:
    """TierformError where the result cannot be a folder of its own."""
    if job.output is None:
        return
    if job.output.exists() and job.output.resolve() == source.resolve():
        fail("the result would replace the model it is made from", key="-o", value=str(job.output))
    if job.output.is_file():
        fail("a folder is needed, this is a file", key="-o", value=str(job.output))


def needed_for(source: Path, job: CompressionJob, measured: bool) -> int:
    """Bytes that the job will take, from the sizes in the model's files."""
    import json

    from safetensors import safe_open

    from tierform.compression.compress import needed_B

    parameters = 0
    for file in source.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                size = 1
                for one in opened.get_slice(name).get_shape():
                    size *= one
                parameters += size
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    hidden = int(config.get("hidden_size") or 1024)
    widest = int(config.get("intermediate_size") or 4 * hidden)
    copies = 5 if job.method == "distill" else 1 + measured
    return needed_B(parameters, widest, job.windows, job.length, hidden, copies)


def read_texts(job: CompressionJob, source: Path) -> tuple[Any, Any]:
    """Windows of the text and of the test text (None without one); TierformError where the job will not fit."""
    from tierform.compression import compress as work
    from tierform.compression.checkpoints.folder import load_tokenizer
    from tierform.compression.text import windows_of

    tokenizer = load_tokenizer(job.model)
    windows = windows_of(job.text, tokenizer, job.windows, job.length)
    tested = None
    if job.test is not None:
        tested = windows_of(job.test, tokenizer, job.test_windows, job.length, key="--test")
    work.check_memory(needed_for(source, job, tested is not None), work.available_B())
    return windows, tested


def skips_of(job: CompressionJob, model: Any, windows: Any, say: Progress) -> tuple[str, ...]:
    """The sublayers that the job leaves out, found on a few windows."""
    from tierform.compression.skipping import choose_skips

    if not job.skip:
        return ()
    few = windows[: min(4, len(windows))]
    return choose_skips(model, few, job.skip, by=job.skip_by, say=lambda text: say(text, 0, 0))


def _whole_model(
    job: CompressionJob, model: Any, windows: Any, skipped: tuple[str, ...], say: Progress
) -> tuple[Any, Plan]:
    from tierform.compression.distillation import distill, shallow
    from tierform.compression.sites import anatomy, skip_sublayers
    from tierform.compression.structured import prune_structure

    settings: dict[str, Any] = {"method": job.method, "windows": list(windows.shape)}
    if job.method == "structured":
        say("taking out neurons and heads", 0, 0)
        settings |= prune_structure(model, windows, ffn=job.ffn, heads=job.heads)
    elif job.method == "distill":
        teacher = model
        model = shallow(teacher, job.layers)
        distill(
            teacher,
            model,
            windows,
            steps=job.steps,
            seed=job.seed,
            progress=lambda step, loss: say(f"learning, divergence {loss:.3f}", step, job.steps),
        )
        settings |= {"layers": job.layers, "steps": job.steps}
    if skipped:
        skip_sublayers(model, skipped)
    parts = anatomy(model)
    left_out = {parts.sublayers[name].name for name in skipped}
    form = FLOAT
    matrices = {site.name: MatrixPlan(site.shape, form) for site in parts.sites if site.name not in left_out}
    held = sum(one.shape[0] * one.shape[1] for one in matrices.values())
    out = sum(parts.sublayers[name].shape[0] * parts.sublayers[name].shape[1] for name in skipped)
    whole = sum(parameter.numel() for parameter in model.parameters()) - out
    return model, Plan(type(model).__name__, job.method, matrices, skipped, 2 * (whole - held), settings)
