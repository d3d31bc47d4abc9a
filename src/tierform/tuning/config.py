"""The file that ``tierform tune`` reads: what to train, on what, when to switch.  Imports no torch.

Mistakes of the file are told all at once; what only the data or the model can tell comes when they are loaded, before
the first step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tierform.errors import Problem, TierformError
from tierform.files import read_yaml
from tierform.schema import FileModel, validate
from tierform.tuning.rule import FixedStep, HpTRule, IntrinsicDimension, LossPlateau, SwitchRule

_Share = Annotated[float, Field(strict=True, gt=0, lt=1)]
_Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
_Row = Annotated[int, Field(strict=True, ge=0, le=10**9)]
_Rate = Annotated[float, Field(strict=True, gt=0, le=1e3)]
_Threshold = Annotated[float, Field(strict=True, ge=-1e6, le=1e6)]


class DataFile(FileModel):
    """Exactly one of: a wide table, station records (a table or a folder), made-up samples, a user's function."""

    series: Path | None = None
    history: _Count | None = None
    horizon: _Count = 1
    test_rows: tuple[_Row, _Row] | None = None
    stations: Path | None = None
    time: str = "date"
    station: str = "station"
    target: str = "target"
    features: tuple[str, ...] = ()
    test_times: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    choose: bool = False
    gaps: Literal["refuse", "drop", "carry"] = "refuse"
    marks: tuple[str, ...] = ()
    difference: bool = False
    synthetic: _Count | None = None
    module: str | None = None

    @model_validator(mode="after")
    def _one(self) -> DataFile:
        given = [key for key in ("series", "stations", "synthetic", "module") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of series, stations, synthetic, module is needed, not {len(given)}")
        if self.series and not self.test_rows:
            raise ValueError("a series needs test_rows: [first, last]")
        if self.stations and not self.test_times:
            raise ValueError("a station table needs test_times: [prefixes of times]")
        return self


class OptimizerFile(FileModel):
    """An optimizer and its learning rate; `decay` is (steps, factor)."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: _Rate = 1e-4
    decay: tuple[_Count, _Share] | None = None


class LowRankFile(FileModel):
    """As :class:`tierform.tuning.lowrank.LowRank`."""

    rank: _Count | Literal["spectrum"] = 8
    alpha: Annotated[float, Field(strict=True, gt=0, le=1e6)] = 64
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    targets: tuple[str, ...] | None = None
    also_train: tuple[str, ...] | None = None
    share: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.9
    least: _Count = 1
    most: _Count = 64


class RuleFile(FileModel):
    """A switch rule; keys that the kind does not use are refused."""

    kind: Literal["hpt", "fixed", "plateau", "intrinsic", "never"] = "hpt"
    window: _Count | None = None
    alpha: _Share | None = None
    loss_threshold: _Threshold | None = None
    weight_threshold: _Threshold | None = None
    step: _Count | None = None
    threshold: Annotated[float, Field(strict=True, ge=0, lt=1)] | None = None
    patience: _Count | None = None
    dimension: _Count | None = None
    trial: bool | None = None

    @model_validator(mode="after")
    def _fits(self) -> RuleFile:
        used = {
            "hpt": {"window", "alpha", "loss_threshold", "weight_threshold"},
            "fixed": {"window", "alpha", "step", "trial"},
            "plateau": {"window", "alpha", "threshold", "patience", "trial"},
            "intrinsic": {"window", "alpha", "dimension", "trial"},
            "never": set(),
        }[self.kind]
        extra = sorted(self.model_fields_set - used - {"kind"})
        if extra:
            raise ValueError(f"the rule {self.kind!r} has no {', '.join(extra)}; it has {', '.join(sorted(used))}")
        needed = {"fixed": "step", "intrinsic": "dimension"}.get(self.kind)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"the rule {self.kind!r} needs {needed!r}")
        return self

    def make(self, window: int) -> SwitchRule:
        """The rule; `window` where the file gives none."""
        named = {key: getattr(self, key) for key in sorted(self.model_fields_set - {"kind", "window"})}
        given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        if self.kind == "never":
            return FixedStep(10**12, window=1)
        if self.kind == "fixed":
            two = 2 if given.get("trial") else 1
            return FixedStep(**given, window=self.window or two)
        kinds: dict[str, Any] = {"hpt": HpTRule, "plateau": LossPlateau, "intrinsic": IntrinsicDimension}
        rule: SwitchRule = kinds[self.kind](window=self.window or window, **given)
        return rule


class TuneFile(FileModel):
    """The whole file; paths in it are taken from the file's folder."""

    model: str
    data: DataFile
    loss: str | None = None
    steps: _Count
    batch: _Count = 1
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    start: Literal["full", "low"] = "full"
    layer: Annotated[int, Field(strict=True, ge=-1000, le=1000)] | None = None
    optimizer: OptimizerFile = OptimizerFile()
    low_optimizer: OptimizerFile | None = None
    low_rank: LowRankFile = LowRankFile()
    rule: RuleFile = RuleFile()
    checkpoint_every: _Count = 500
    threads: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    output: Path

    @model_validator(mode="after")
    def _window_fits(self) -> TuneFile:
        if self.rule.window and self.rule.window > self.steps:
            raise ValueError(f"the rule's window ({self.rule.window}) is longer than the run ({self.steps} steps)")
        if self.data.module and not self.loss and ":" in self.model:
            raise ValueError("a model and data of your own need 'loss: module:function' too")
        return self


def _stands(path: Path, *, folder_too: bool) -> bool:
    """Whether a file is there; what can be no path at all (too long) is not."""
    try:
        return path.is_file() or (folder_too and path.is_dir())
    except OSError:
        return False


def load_config(path: Path | str) -> TuneFile:
    """Read and check a file; TierformError with every mistake, its line and the fix."""
    document = read_yaml(path)
    found = validate(TuneFile, document)
    folder = Path(path).resolve().parent
    problems = []
    for key in ("series", "stations"):
        given = getattr(found.data, key)
        if given is not None and not _stands(folder / given, folder_too=key == "stations"):
            line = document.line_of(("data", key))
            problems.append(Problem("no such file", str(path), line, f"data.{key}", str(given)))
    if ":" not in found.model:
        from importlib.util import find_spec

        if find_spec("torch") is None:
            from tierform.errors import MissingDependency

            raise MissingDependency("torch", "training", "train")
        from tierform.tuning.applications import APPLICATIONS

        if found.model not in APPLICATIONS:
            from tierform.errors import nearest

            names = APPLICATIONS.names()
            fix = f"Registered: {', '.join(names)}; or module:function of your own."
            line = document.line_of(("model",))
            problems.append(
                Problem(
                    what="not a registered application",
                    file=str(path),
                    line=line,
                    key="model",
                    value=found.model,
                    nearest=nearest(found.model, names),
                    fix=fix,
                )
            )
    if problems:
        raise TierformError(problems)
    data = found.data.model_copy(
        update={k: folder / v for k in ("series", "stations") if (v := getattr(found.data, k)) is not None}
    )
    return found.model_copy(update={"data": data, "output": folder / found.output})
