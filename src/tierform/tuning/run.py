"""A run from its file: build the model, load the samples, train, switch, test, write.

The output folder gets ``run.tft`` (the checkpoint), ``log.csv``, ``log.json``, ``summary.json`` and
``model.safetensors`` (the merged, plain model), each written whole.  A run whose checkpoint lies there goes on from it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tierform.errors import fail
from tierform.files import atomic_path, folder_lock, make_folder, read_text, write_json
from tierform.tuning.applications import APPLICATIONS, Application, build, low_rank_settings
from tierform.tuning.config import OptimizerFile, TuneFile
from tierform.tuning.feeding import ShuffledBatches, error_on, squared_error
from tierform.tuning.lowrank import LowRank
from tierform.tuning.side import optimizer
from tierform.tuning.tables import Split, read_series, read_stations, series_samples, synthetic
from tierform.tuning.trainer import HybridTrainer
from tierform.workload.models import Model, load_model

DEFAULT_WINDOW = 100


def user_function(target: str, folder: Path) -> Any:
    """``file.py:name`` (from `folder`) or ``package.module:name``; TierformError when it is not there."""
    place, _, name = target.rpartition(":")
    try:
        if place.endswith(".py"):
            path = (folder / place).resolve()
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None or not path.is_file():
                fail("no such file", file=str(path))
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except ImportError as error:
        fail(f"the module cannot be imported: {error}", value=target)
    if not hasattr(module, name):
        fail("the module has no such name", value=name, choices=vars(module), file=place)
    return getattr(module, name)


def load_split(file: TuneFile, model: Model) -> Split:
    """The samples of a registered application."""
    given = file.data
    if given.series is not None:
        if model.decoder_widths[-1] != model.fixed_tokens:
            fail(f"{model.name} does not predict a value for each station", key="data.series")
        assert given.test_rows is not None
        history = given.history or model.input_size
        if history != model.input_size:
            fail(f"{model.name} takes {model.input_size} past values", key="data.history", value=history)
        series = read_series(given.series, model.fixed_tokens)
        return series_samples(series, history, slice(*given.test_rows), given.horizon)
    if given.stations is not None:
        return read_stations(
            given.stations,
            model,
            time=given.time,
            station=given.station,
            target=given.target,
            features=given.features,
            test_times=given.test_times,
            history=given.history or 0,
            only=given.only,
            choose=given.choose,
            gaps=given.gaps,
            marks=given.marks,
            difference=given.difference,
        )
    assert given.synthetic is not None
    return synthetic(model, given.synthetic, max(8, given.synthetic // 4), file.seed)


def _schedule(file: OptimizerFile) -> Callable[[Any], Any] | None:
    if file.decay is None:
        return None
    steps, factor = file.decay
    return lambda made: torch.optim.lr_scheduler.StepLR(made, steps, factor)


def prepare(file: TuneFile, folder: Path) -> tuple[HybridTrainer, Any, Callable[[Any], dict[str, float]] | None]:
    """Trainer, batches by step, and the test (None when a user's data has none)."""
    if file.threads:
        torch.set_num_threads(file.threads)
    torch.manual_seed(file.seed)
    application: Application | None = None
    evaluate: Callable[[Any], dict[str, float]] | None = None
    if ":" in file.model:
        model = user_function(file.model, folder)()
    else:
        application = APPLICATIONS.get(file.model)
        model = build(file.model, file.seed)
    loss = user_function(file.loss, folder) if file.loss else squared_error
    identity = _identity(file, None)
    if file.data.module is not None:
        made = user_function(file.data.module, folder)()
        batches, evaluate = made if isinstance(made, tuple) else (made, None)
        if not callable(batches):
            fail(
                "the function must return batches by step, or (batches, evaluate)",
                key="data.module",
                value=type(batches).__name__,
            )
    elif application is None:
        fail("samples of this kind need a registered application", key="data", fix="Use data: {module: ...}.")
    else:
        split = load_split(file, load_model(application.model))
        identity = _identity(file, split)
        batches = ShuffledBatches(split.train, file.batch, file.seed)

        def evaluate(model: Any) -> dict[str, float]:
            return error_on(model, split.test)

    low = file.low_rank
    changes: dict[str, Any] = low.model_dump(exclude_none=True)
    settings = low_rank_settings(**changes) if application else LowRank(**changes)
    layer = file.layer if file.layer is not None or application is None else application.layer
    rule = file.rule.make(application.window if application else DEFAULT_WINDOW)
    if rule.window > file.steps:
        fail(
            "the rule's window is longer than the run",
            key="rule.window",
            value=rule.window,
            fix=f"Set it; the run has {file.steps} steps.",
        )
    second = file.low_optimizer or file.optimizer
    trainer = HybridTrainer(
        model,
        loss,
        rule,
        settings,
        layer=layer if layer is not None else 0,
        seed=file.seed,
        optimizer=optimizer(file.optimizer.kind, file.optimizer.learning_rate),
        low_optimizer=optimizer(second.kind, second.learning_rate),
        schedule=_schedule(file.optimizer),
        low_schedule=_schedule(second),
        identity=identity,
    )
    return trainer, batches, evaluate


def _identity(file: TuneFile, split: Split | None) -> dict[str, Any]:
    """What of a file decides a run beside model, rule, optimizers and seed: names of functions, batch, samples."""
    found: dict[str, object] = {"model": file.model, "loss": file.loss, "start": file.start, "batch": file.batch}
    if split is None:
        return found | {"data": file.data.module}
    digest = hashlib.sha256()
    for samples in (split.train, split.test):
        digest.update(repr((samples.inputs.shape, samples.targets.shape, samples.scale)).encode())
        digest.update(np.ascontiguousarray(samples.inputs).data)
        digest.update(np.ascontiguousarray(samples.targets).data)
    return found | {"data": digest.hexdigest()}


def check(file: TuneFile, folder: Path) -> list[str]:
    """Everything that can be found wrong without running a user's code; what was not run is told."""
    own = [one for one in (file.model, file.loss, file.data.module) if one is not None and ":" in one]
    if not own:
        prepare(file, folder)
        return []
    for one in own:
        _find(one, folder)
    return [f"{one} was found and not run" for one in dict.fromkeys(own)]


def _find(target: str, folder: Path) -> None:
    """Whether a file defines a name at its top, told by its syntax tree; of a package only that it is installed."""
    place, _, name = target.rpartition(":")
    if not place.endswith(".py"):
        if importlib.util.find_spec(place.split(".")[0]) is None:
            fail("the module cannot be imported: no such package", value=target)
        return
    path = (folder / place).resolve()
    text = read_text(path)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what, line = (error.msg, error.lineno) if isinstance(error, SyntaxError) else (None, None)
        fail(f"this is no Python: {what or error}", file=str(path), line=line)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(one.asname or one.name).split(".")[0] for one in node.names}
    if name not in names and "*" not in names:
        fail("the module has no such name", value=name, choices=names, file=str(path))


def run(
    file: TuneFile, folder: Path, *, fresh: bool = False, tell: Callable[[HybridTrainer], None] = lambda _: None
) -> dict[str, Any]:
    """Train as the file says and write the output folder; returns the summary.

    KeyboardInterrupt after Ctrl-C, with the checkpoint and the log written.
    """
    with folder_lock(make_folder(file.output)):
        return _run(file, folder, fresh, tell)


def _run(file: TuneFile, folder: Path, fresh: bool, tell: Callable[[HybridTrainer], None]) -> dict[str, object]:
    path = file.output / "run.tft"
    trainer, batches, evaluate = prepare(file, folder)
    if path.exists() and not fresh:
        trainer.resume(path)
    elif file.start == "low":
        trainer.switch()
    try:
        trainer.fit(batches, file.steps, checkpoint=path, every=file.checkpoint_every, tell=tell)
    finally:
        if trainer.journal.rows:
            trainer.journal.write(file.output)
    summary = trainer.summary()
    summary["test"] = evaluate(trainer.model) if evaluate else None
    summary["decisions"] = trainer.journal.to_dict()["decisions"]
    summary["loss_points"] = trainer.journal.loss_points()
    write_json(file.output / "summary.json", summary)
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    target = file.output / "model.safetensors"
    try:
        with atomic_path(target) as temporary:
            save_model(trainer.merged().cpu(), str(temporary))
    except SafetensorError as error:
        fail(f"cannot write here: {error}", file=str(target))
    return summary
