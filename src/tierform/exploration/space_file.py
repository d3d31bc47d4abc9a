"""The space file, ``tierform.space/1``: read with every mistake at once, its line and the nearest name."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

from tierform.chip.changes import MOST_STEPS
from tierform.errors import Problem, TierformError, nearest
from tierform.exploration.evaluator import ACCURACY_FIGURES, FIGURES, JOB_FIGURES, SERVICE_FIGURES
from tierform.exploration.space import (
    DERIVED,
    LARGEST,
    Bound,
    Objective,
    Parameter,
    Space,
    Value,
    evaluate,
    splits,
    ways_of,
)
from tierform.exploration.space_check import mistakes
from tierform.files import Document, read_yaml
from tierform.units import parse_quantity, unit_scale

SCHEMA = "tierform.space/1"
KEYS = (
    "schema",
    "name",
    "job",
    "service",
    "accuracy",
    "parameters",
    "derived",
    "whole",
    "splits",
    "objectives",
    "limits",
)
RANGE_KEYS = ("path", "values", "from", "to", "whole", "log", "when")
ROOTS = (
    "model",
    "chip",
    "task",
    "parallelism",
    "runtime",
    "fidelity",
    "thermal",
    "overflow",
    "mapping",
    "micro_batches",
    "service",
    "accuracy",
)
WAYS = ("data", "tensor", "pipeline", "context", "expert")
At = tuple[str | int, ...]
MOST_DEVICES, MOST_SPLITS = 1 << 20, 2_000_000


def load_space(path: Path | str) -> Space:
    """The space of a file; TierformError with every mistake and its line, those of its job and of paths among them."""
    return _Reader(read_yaml(path), built=True).space()


def space_of(document: Document) -> Space:
    """The space of a document."""
    return _Reader(document).space()


class _Reader:
    def __init__(self, document: Document, *, built: bool = False) -> None:
        self.document, self.built = document, built
        self.problems: list[Problem] = []
        self.figures = JOB_FIGURES

    def wrong(self, what: str, at: At, value: object = None, choices: Any = (), fix: str | None = None) -> None:
        known = [str(choice) for choice in choices]
        close = nearest(str(value), known) if known and value is not None else None
        if fix is None and known:
            fix = f"Known here: {', '.join(known)}."
        key = ".".join(map(str, at))
        self.problems.append(
            Problem(what, self.document.file, self.document.line_of(at), key, value, nearest=close, fix=fix)
        )

    def space(self) -> Space:
        content = self.document.content
        if not isinstance(content, dict):
            self.wrong("keys with values are needed here", ())
            raise TierformError(self.problems)
        for key in content:
            if key not in KEYS:
                self.wrong("unknown key", (key,), key, KEYS)
        if content.get("schema") != SCHEMA:
            self.wrong("this file needs its schema", ("schema",), content.get("schema"), [SCHEMA])
        base = content.get("job")
        if not isinstance(base, dict):
            self.wrong("a job's keys (model, chip, task) are needed here", ("job",), base)
            base = {}
        service = self.part("service", "a service's keys (rate or trace, slo, engine) are needed here")
        accuracy = self.part("accuracy", "an accuracy's keys (model, data, bits, noise) are needed here")
        if service and accuracy:
            self.wrong("a point is a service or a job with its accuracy", ("accuracy",), fix="Leave one of them out.")
        self.figures = SERVICE_FIGURES if service else {**JOB_FIGURES, **(ACCURACY_FIGURES if accuracy else {})}
        parameters = self.parameters(content.get("parameters", {}))
        found, pruned = self.splits(content.get("splits"))
        ways = ways_of(str(found[0].choices[0])) if found else {}
        asked = any(parameter.when and parameter.when[0] in ways for parameter in parameters)
        # Where parameters act with some splits only, the split is chosen before them.
        parameters = found + parameters if asked else parameters + found
        names = {parameter.name for parameter in parameters} | set(ways)
        if not parameters and not self.problems:
            self.wrong("there is nothing to choose", ("parameters",), fix="Give at least one parameter.")
        derived = self.derived(content.get("derived", {}), parameters, ways)
        whole = self.whole(content.get("whole", []), parameters, ways)
        objectives = self.objectives(content.get("objectives"))
        limits = self.limits(content.get("limits", {}))
        self.when_known(parameters, names, set(ways) if asked else set())
        space = Space(
            name=str(content.get("name", Path(self.document.file).stem)),
            parameters=tuple(parameters),
            objectives=tuple(objectives),
            limits=tuple(limits),
            derived=tuple(derived),
            base=base,
            folder=str(Path(self.document.file).parent),
            pruned=tuple(pruned),
            whole=tuple(whole),
            service=service,
            accuracy=accuracy,
        )
        if self.built:
            # Formulas with a mistake of their own are left out.
            sound = [one for one in derived if not any(p.key == f"derived.{one[0]}" for p in self.problems)]
            self.problems += mistakes(replace(space, derived=tuple(sound)), self.document)
        if self.problems:
            raise TierformError(sorted(self.problems, key=lambda problem: problem.line or 0))
        return space

    def part(self, name: str, needed: str) -> dict[str, Any]:
        """The keys under a name that may be left out."""
        given = self.document.content.get(name, {})
        if isinstance(given, dict) and (given or name not in self.document.content):
            return given
        self.wrong(needed, (name,), given)
        return {}

    def parameters(self, given: Any) -> list[Parameter]:
        if not isinstance(given, dict):
            self.wrong("names with choices or ranges are needed here", ("parameters",), given)
            return []
        found = [self.parameter(str(name), entry, ("parameters", name)) for name, entry in given.items()]
        return [parameter for parameter in found if parameter is not None]

    def parameter(self, name: str, entry: Any, at: At) -> Parameter | None:
        before = len(self.problems)
        if isinstance(entry, list):
            entry = {"values": entry}
        if not isinstance(entry, dict):
            self.wrong("a list of choices, or keys `from` and `to`, are needed here", at, entry)
            return None
        for key in entry:
            if key not in RANGE_KEYS:
                self.wrong("unknown key", (*at, key), key, RANGE_KEYS)
        path = str(entry.get("path", name))
        if path.count(".") >= MOST_STEPS:
            self.wrong(f"a path has at most {MOST_STEPS} keys", at, path.count(".") + 1)
            return None
        if path.split(".")[0] not in ROOTS and path != DERIVED:
            self.wrong("a path begins with a part of the job", at, path.split(".")[0], (*ROOTS, DERIVED))
        when = self.when(entry.get("when"), at)
        if "values" in entry:
            choices = entry["values"]
            if not isinstance(choices, list) or not choices or any(isinstance(c, dict | list) for c in choices):
                self.wrong("a list of texts or numbers is needed here", (*at, "values"), choices)
                return None
            if len(set(map(repr, choices))) < len(choices):
                self.wrong("a choice stands twice", (*at, "values"), choices)
            return Parameter(name, path, choices=tuple(choices), when=when)
        low, high, unit = self.ends(entry, at)
        if len(self.problems) > before:
            return None
        return Parameter(
            name=name, path=path, low=low, high=high, whole=bool(entry.get("whole", False)),
            log=bool(entry.get("log", False)), unit=unit, when=when,
        )  # fmt: skip

    def ends(self, entry: dict[str, Any], at: At) -> tuple[float, float, str]:
        ends: list[float] = []
        unit = ""
        for key in ("from", "to"):
            text = str(entry.get(key, "")).split(maxsplit=1)
            try:
                end = float(text[0])
            except (IndexError, ValueError):
                end = nan
            if abs(end) <= LARGEST:
                ends.append(end)
            else:
                self.wrong("a number is needed here, perhaps with a unit", (*at, key), entry.get(key))
                return 0.0, 0.0, ""
            own = text[1] if len(text) > 1 else ""
            if own and unit_scale(own) is None:
                self.wrong("not a known unit", (*at, key), own)
            if key == "to" and own != unit:
                self.wrong("both ends need the same unit", (*at, key), own, fix=f"Write it in {unit or 'no unit'}.")
            unit = own
        if not ends[0] < ends[1]:
            self.wrong("`from` must be below `to`", at, ends)
        if entry.get("log") and ends[0] <= 0:
            self.wrong("a logarithmic range begins above zero", (*at, "from"), ends[0])
        if entry.get("whole") and any(end != int(end) for end in ends):
            self.wrong("a whole range has whole ends", at, ends)
        return ends[0], ends[1], unit

    def when(self, given: Any, at: At) -> tuple[str, tuple[Value, ...]] | None:
        if given is None:
            return None
        if not isinstance(given, dict) or len(given) != 1:
            self.wrong("one other parameter with its values is needed here", (*at, "when"), given)
            return None
        name, values = next(iter(given.items()))
        return str(name), tuple(values) if isinstance(values, list) else (values,)

    def when_known(self, parameters: list[Parameter], names: set[str], ways: set[str]) -> None:
        above = set(ways)
        for parameter in parameters:
            if parameter.when and parameter.when[0] not in above:
                at: At = ("parameters", parameter.name, "when")
                what = "stands below" if parameter.when[0] in names else "unknown parameter"
                self.wrong(what, at, parameter.when[0], above)
            above.add(parameter.name)

    def whole(self, given: Any, parameters: list[Parameter], ways: dict[str, int]) -> list[str]:
        if not isinstance(given, list) or not all(isinstance(formula, str) for formula in given):
            self.wrong("a list of formulas is needed here", ("whole",), given)
            return []
        sample: dict[str, Value] = {parameter.name: parameter.at(0.5) for parameter in parameters}
        for index, formula in enumerate(given):
            try:
                evaluate(formula, {**sample, **ways})
            except TierformError as error:
                known = f"Known: {', '.join([*sample, *ways])}."
                self.wrong(error.problems[0].what, ("whole", index), formula, fix=known)
        return list(given)

    def derived(self, given: Any, parameters: list[Parameter], ways: dict[str, int]) -> list[tuple[str, str]]:
        if not isinstance(given, dict):
            self.wrong("paths with formulas are needed here", ("derived",), given)
            return []
        sample: dict[str, Value] = {parameter.name: parameter.at(0.5) for parameter in parameters}
        sample.update(ways)
        found = []
        for path, formula in given.items():
            if str(path).count(".") >= MOST_STEPS:
                self.wrong(f"a path has at most {MOST_STEPS} keys", ("derived", path), str(path).count(".") + 1)
                continue
            try:
                evaluate(str(formula), sample)
            except TierformError as error:
                close = error.problems[0].nearest
                self.wrong(error.problems[0].what, ("derived", path), formula, fix=f"Known: {', '.join(sample)}.")
                self.problems[-1] = Problem(
                    self.problems[-1].what, self.problems[-1].file, self.problems[-1].line, self.problems[-1].key,
                    formula, nearest=close, fix=self.problems[-1].fix,
                )  # fmt: skip
            if str(path).split(".")[0] not in ROOTS:
                self.wrong("a path begins with a part of the job", ("derived", path), str(path).split(".")[0], ROOTS)
            found.append((str(path), str(formula)))
        return found

    def splits(self, given: Any) -> tuple[list[Parameter], list[str]]:
        if given is None:
            return [], []
        if not isinstance(given, dict) or not isinstance(given.get("devices"), int) or given["devices"] < 1:
            self.wrong("a number of devices and the ways to split are needed here", ("splits",), given)
            return [], []
        over = given.get("over", list(WAYS[:3]))
        if not isinstance(over, list | dict):
            self.wrong("the ways to split are needed here, or each with its numbers", ("splits", "over"), over)
            return [], []
        upto = min(given["devices"], MOST_DEVICES)
        divisors = [number for number in range(1, upto + 1) if given["devices"] % number == 0]
        if given["devices"] > MOST_DEVICES or len(divisors) ** len(over) > MOST_SPLITS:
            self.wrong("so many devices can be split in too many ways", ("splits", "devices"), given["devices"])
            return [], []
        for way in over:
            numbers = over[way] if isinstance(over, dict) else None
            if numbers is not None and not isinstance(numbers, list):
                self.wrong("a list of numbers is needed here", ("splits", "over", str(way)), numbers)
            if way not in WAYS:
                self.wrong("not a way to split", ("splits", "over"), way, WAYS)
        if self.problems:
            return [], []
        ways = over if isinstance(over, dict) else dict.fromkeys(over, ())
        chosen, pruned = splits(given["devices"], {way: list(numbers or ()) for way, numbers in ways.items()})
        if not chosen:
            self.wrong("no split uses all devices", ("splits",), given["devices"])
            return [], []
        text = tuple(" x ".join(f"{way} {number}" for way, number in split.items()) for split in chosen)
        return [Parameter("split", "parallelism", choices=text)], pruned

    def objectives(self, given: Any) -> list[Objective]:
        entries = given if isinstance(given, list) else [given]
        found = []
        for index, entry in enumerate(entries):
            figure, way = next(iter(entry.items())) if isinstance(entry, dict) and entry else (entry, "least")
            if not isinstance(figure, str) or figure not in self.figures:
                self.wrong("not a figure of a result", ("objectives", index), figure, self.figures)
            elif way not in ("least", "most"):
                self.wrong("an objective is wanted least or most", ("objectives", index), way, ("least", "most"))
            else:
                found.append(Objective(figure, way == "most"))
        return found

    def limits(self, given: Any) -> list[Bound]:
        if not isinstance(given, dict):
            self.wrong("figures with limits are needed here", ("limits",), given)
            return []
        found = []
        for figure, entry in given.items():
            if figure not in self.figures:
                self.wrong("not a figure of a result", ("limits", figure), figure, self.figures)
                continue
            ends = entry if isinstance(entry, dict) else {"most": entry}
            numbers: dict[str, float] = {}
            for key, value in ends.items():
                if key not in ("most", "least"):
                    self.wrong("unknown key", ("limits", figure, key), key, ("most", "least"))
                    continue
                try:
                    numbers[key] = parse_quantity(value, FIGURES[figure]) if isinstance(value, str) else float(value)
                    if not abs(numbers[key]) <= LARGEST:
                        raise ValueError
                except (TierformError, TypeError, ValueError, OverflowError):
                    self.wrong(
                        f"a quantity in {FIGURES[figure] or 'numbers'} is needed here", ("limits", figure), value
                    )
            found.append(Bound(figure, numbers.get("most"), numbers.get("least")))
        return found
