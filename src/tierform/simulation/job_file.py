"""A Job as a file, YAML or JSON: read with all mistakes at once, and written so that it reads back equal.

The records of the task are those of the Python interface; ``kind`` says which one (``inference``, ``finetuning``,
``training``; of methods ``full``, ``lora``, ...).  What is left out has its default.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tierform import library
from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import Document, read_yaml, write_text
from tierform.mapping import Mapping
from tierform.simulation.job import CHOICES, Job
from tierform.simulation.runtime import Runtime
from tierform.workload import Model, Workload, load_model
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.reduced import Reduction
from tierform.workload.task import METHODS, TASKS

SCHEMA = "tierform.job/1"
_PLAIN = ("model", "chip", "runtime", "fidelity", "thermal", "overflow", "mapping")
_KEYS = ("schema", *_PLAIN, "task", "parallelism", "micro_batches", "reduction")
At = tuple[str | int, ...]


@cache
def _hints(kind: type) -> dict[str, Any]:
    # Python parses the text of every annotation anew each time.
    return get_type_hints(kind)


# -- reading -----------------------------------------------------------------------------------------------------
def load_job(path: Path | str) -> Job:
    """The Job of a file; TierformError with every mistake and its line.  Paths in it are relative to the file."""
    return job_of(read_yaml(path))


def job_of(document: Document) -> Job:
    """The Job of a document's content; TierformError with every mistake and its line."""
    if not isinstance(document.content, dict):
        fail("keys with values are needed here", file=document.file)
    return _Reader(document).job()


@dataclass
class _Reader:
    """Turns the plain content of a job file into records and collects everything that is wrong."""

    document: Document

    def __post_init__(self) -> None:
        self.problems: list[Problem] = []

    def job(self) -> Job:
        content = dict(self.document.content)
        self._unknown(content, _KEYS, ())
        if content.get("schema", SCHEMA) != SCHEMA:
            self._problem("this file has another schema", ("schema",), content["schema"], [SCHEMA])
        given: dict[str, Any] = {}
        for key in _PLAIN:
            if key in content:
                if isinstance(content[key], str):
                    given[key] = self._beside(content[key])
                else:
                    self._problem("a text is needed here", (key,), content[key])
        for key in ("model", "chip", "task"):
            if key not in content:
                self._problem("this key is missing", (key,), None)
        given["task"] = self._chosen(TASKS, content.get("task"), ("task",)) if "task" in content else None
        if "parallelism" in content:
            given["parallelism"] = self._record(Parallelism, content["parallelism"], ("parallelism",))
        if "reduction" in content:
            given["reduction"] = self._record(Reduction, content["reduction"], ("reduction",))
        split = content.get("micro_batches")
        if isinstance(split, dict):
            split = self._record(MicroBatches, split, ("micro_batches",))
        elif split is not None and (not isinstance(split, int) or isinstance(split, bool)):
            self._problem("a whole number, or one for each phase, is needed here", ("micro_batches",), split)
        given["micro_batches"] = split
        for key, choices in CHOICES.items():
            if key in given and given[key] not in choices:
                self._problem("not a known choice", (key,), given[key], choices)
        if self.problems:
            raise TierformError(self.problems)
        try:
            return Job(**given)
        except TierformError as error:
            raise TierformError([self._placed(problem, (problem.key or "",)) for problem in error.problems]) from None

    def _beside(self, text: str) -> str:
        """A path of the file, as seen from where the file lies; names stay."""
        path = Path(self.document.file).parent / text
        looks = text.endswith((".yaml", ".yml", ".json")) or text.startswith(("./", "../"))
        return str(path) if looks and not Path(text).is_absolute() else text

    def _chosen(self, kinds: dict[str, type], content: object, at: At) -> object:
        """The record that the key ``kind`` names."""
        if not isinstance(content, dict):
            self._problem("keys with values are needed here", at, content)
            return None
        kind = content.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            what = "not a known kind" if "kind" in content else "the key 'kind' is missing"
            self._problem(what, (*at, "kind"), kind, kinds)
            return None
        return self._record(kinds[kind], {key: value for key, value in content.items() if key != "kind"}, at)

    def _record(self, kind: type, content: object, at: At) -> object:
        """A record of the Python interface from its keys."""
        if not isinstance(content, dict):
            self._problem("keys with values are needed here", at, content)
            return None
        hints = _hints(kind)
        self._unknown(content, [item.name for item in fields(kind)], at)
        given: dict[str, object] = {}
        before = len(self.problems)
        for item in fields(kind):
            place = (*at, item.name)
            if item.name not in content:
                if item.default is MISSING and item.default_factory is MISSING:
                    self._problem("this key is missing", place, None)
                continue
            given[item.name] = self._value(hints[item.name], content[item.name], place)
        if len(self.problems) > before:
            return None
        try:
            return kind(**given)
        except TierformError as error:
            self.problems += [self._placed(problem, (*at, problem.key or "")) for problem in error.problems]
            return None

    def _value(self, hint: object, value: object, at: At) -> object:
        choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        records = [choice for choice in choices if isinstance(choice, type) and is_dataclass(choice)]
        if value is None and type(None) in choices:
            return None
        if len(records) > 1:
            return self._chosen({name: kind for name, kind in METHODS.items() if kind in records}, value, at)
        if records:
            return self._record(records[0], value, at)
        for choice in choices:
            origin = get_origin(choice)
            if origin is Literal and value in get_args(choice):
                return value
            if origin is tuple and isinstance(value, list):
                inner = get_args(choice)[0]
                return tuple(self._value(inner, item, (*at, place)) for place, item in enumerate(value))
            if isinstance(choice, type) and isinstance(value, choice) and isinstance(value, bool) == (choice is bool):
                return value
            if choice is float and isinstance(value, int) and not isinstance(value, bool):
                return float(value)
        literal = [str(item) for choice in choices if get_origin(choice) is Literal for item in get_args(choice)]
        self._problem(f"{_named(choices)} is needed here", at, value, literal)
        return None

    # -- what is wrong ----------------------------------------------------------------------------------------
    def _unknown(self, content: dict[str, object], known: Any, at: At) -> None:
        for key in content:
            if key not in known:
                self._problem("unknown key", (*at, key), None, known, shown=key)

    def _problem(self, what: str, at: At, value: object, choices: Any = (), shown: str | None = None) -> None:
        known = [str(choice) for choice in choices]
        close = nearest(str(value if shown is None else shown), known) if known else None
        fix = f"Known here: {', '.join(known)}." if known else None
        self.problems.append(
            Problem(
                what,
                file=self.document.file,
                line=self.document.line_of(at),
                key=".".join(map(str, at)),
                value=value,
                nearest=close,
                fix=fix,
            )
        )

    def _placed(self, problem: Problem, at: At) -> Problem:
        """A problem of a record, with the file's line."""
        return Problem(
            problem.what,
            file=self.document.file,
            line=self.document.line_of(at),
            key=".".join(str(part) for part in at if part != ""),
            value=problem.value,
            nearest=problem.nearest,
            fix=problem.fix,
        )


def _named(choices: tuple[object, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    found = [names[choice] for choice in choices if choice in names]
    if any(get_origin(choice) is tuple for choice in choices):
        found.append("a list")
    if any(get_origin(choice) is Literal for choice in choices):
        found.append("one of the known choices")
    return " or ".join(found) or "another value"


# -- writing -----------------------------------------------------------------------------------------------------
def job_content(job: Job) -> dict[str, object]:
    """The job as plain data, as in its file; TierformError where a part has no file or library name."""
    content: dict[str, object] = {"schema": SCHEMA}
    content["model"] = _name_of_model(job.model)
    content["chip"] = _name_of_chip(job.chip)
    content["task"] = _record_content(job.task)
    if job.parallelism != Parallelism():
        content["parallelism"] = {
            name: value for name, value in asdict(job.parallelism).items() if value != getattr(Parallelism(), name)
        }
    content["runtime"] = job.runtime.name if isinstance(job.runtime, Runtime) else job.runtime
    for name in ("fidelity", "thermal", "overflow"):
        content[name] = getattr(job, name)
    if isinstance(job.mapping, Mapping):
        fail("a mapping in memory has no file", key="mapping", fix="Save it and give the job its path.")
    content["mapping"] = str(job.mapping)
    if job.reduction is not None:
        content["reduction"] = job.reduction.used
    if job.micro_batches is not None:
        split = job.micro_batches
        content["micro_batches"] = asdict(split) if isinstance(split, MicroBatches) else split
    return content


def job_view(job: Job) -> tuple[dict[str, Any], list[str]]:
    """The job as plain data whatever it was made from, and which of its parts a file could not name.

    A chip that was varied stands there whole, as its own file would say it; other such parts by their names.
    """
    model, chip, shown, missing = job.model, job.chip, {}, []
    if not isinstance(model, str) and not _is_of_library(model):
        work = model if isinstance(model, Workload) else None
        shown["model"] = work.model.name if work else model.name  # type: ignore[union-attr]
        missing.append("model")
        job = replace(job, model=shown["model"], task=work.task if work else job.task)
    if isinstance(chip, Chip) and not chip.file:
        shown["chip"] = chip.origin.content if chip.origin is not None else chip.name
        missing.append("chip")
        job = replace(job, chip=chip.name)
    if isinstance(job.mapping, Mapping):
        missing.append("mapping")
        job = replace(job, mapping="best")
    return {**job_content(job), **shown}, missing


def save_job(job: Job, path: Path | str) -> None:
    """Write the job's file: JSON where the name ends so, else YAML."""
    content = job_content(job)
    if str(path).endswith(".json"):
        write_text(path, json.dumps(content, indent=2) + "\n")
        return
    import io

    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = 118
    text = io.StringIO()
    writer.dump(content, text)
    write_text(path, "# A job: simulate it with `tierform simulate --job FILE`.\n" + text.getvalue())


def _is_of_library(model: Model | Workload) -> bool:
    """Whether a model is what the library has under its name, and not a changed one that kept the name."""
    return isinstance(model, Model) and model.name in library.names("models") and load_model(model.name) == model


def _name_of_model(model: Model | Workload | str) -> str:
    if isinstance(model, str):
        return model
    if isinstance(model, Model) and _is_of_library(model):
        return model.name
    return fail("a model in memory has no file", key="model", fix="Give the job a library name or a folder.")


def _name_of_chip(chip: Chip | str) -> str:
    if isinstance(chip, str):
        return chip
    if not chip.file:
        fail("a varied chip has no file", key="chip", fix="Write it with chip.write(path) and give the job that path.")
    inside = chip.name in library.names("chips") and Path(chip.file) == library.find("chips", chip.name)
    return chip.name if inside else chip.file


def _record_content(record: Any) -> dict[str, object]:
    kinds = {kind: name for name, kind in {**TASKS, **METHODS}.items()}
    content: dict[str, object] = {"kind": kinds[type(record)]} if type(record) in kinds else {}
    for item in fields(record):
        value = getattr(record, item.name)
        if item.default is not MISSING and value == item.default:
            continue
        content[item.name] = _value_content(value)
    return content


def _value_content(value: object) -> object:
    if isinstance(value, PrecisionPlan):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return _record_content(value)
    if isinstance(value, tuple):
        return [_value_content(item) for item in value]
    return value
