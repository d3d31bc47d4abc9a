"""What a study is: a function ``run(options: StudyOptions) -> StudyResult``, found by name in the registry.

A study states what it computed, the published figure beside it, and what could not be checked.  It draws nothing and
prints nothing; its tables hold plain numbers.  Plug-in packages add studies through the entry-point group
``tierform.studies``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.provenance import Assumption
from tierform.registry import Registry
from tierform.units import whole_number

Cell = str | int | float | bool | None

# name -> "module:run"
STUDIES = Registry(
    "study",
    "tierform.studies",
    {
        "atleus": "tierform.studies.atleus:run",
        "hetrax": "tierform.studies.hetrax:run",
        "hpt": "tierform.studies.hpt:run",
        "isaac": "tierform.studies.isaac:run",
        "smartquant": "tierform.studies.smartquant:run",
        "tyukin": "tierform.studies.tyukin:run",
        "speculative": "tierform.studies.speculative:run",
        "small-cores": "tierform.studies.small_cores:run",
        "survey": "tierform.studies.survey:run",
        "smartquant-serving": "tierform.studies.smartquant_serving:run",
        "serving-chips": "tierform.studies.serving_chips:run",
        "must-hold": "tierform.studies.must_hold:run",
    },
)

# What each is about, in a line.
ABOUT = {
    "atleus": "transformers on ReRAM tiers over a systolic tier, against GPUs, a 3D-TPU and HAIMA",
    "hetrax": "multiprocessors over a ReRAM tier, against HAIMA and TransPIM",
    "hpt": "training on a GPU that goes on at low rank on a ReRAM stack",
    "isaac": "the tile that ISAAC's authors chose, found again",
    "smartquant": "weights behind a CXL controller, fewer bit planes where they matter less",
    "tyukin": "layers of attention left out of inference",
    "speculative": "decoding with drafts: when it pays, on which chip",
    "small-cores": "one model over many small cores",
    "survey": "architectures with computation in memory, side by side",
    "smartquant-serving": "fewer planes under load",
    "serving-chips": "four kinds of chip that serve the same conversations",
    "must-hold": "which published figures of Atleus, HeTraX and HpT can hold at once, and what they need",
}


def _silent(_: str) -> None:
    """Progress that nobody listens to."""


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """What the user chose: `quick` for a small version of the same, a `seed`, the study's own settings as texts.

    `say` is told what is being done, for a progress display.
    """

    quick: bool = False
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = _silent

    def check_settings(self, known: Iterable[str]) -> None:
        """TierformError for every setting that the study does not have."""
        names = list(known)
        problems = [
            Problem(
                "the study has no such setting",
                key=key,
                nearest=nearest(key, names),
                fix=f"Known: {', '.join(names) or 'none'}.",
            )
            for key in self.settings
            if key not in names
        ]
        if problems:
            raise TierformError(problems)

    def whole_numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A setting of whole numbers with commas between; TierformError when it is something else."""
        text = self.settings.get(key)
        if text is None:
            return default
        found = [whole_number(part.strip()) for part in text.split(",")]
        if not all(found):
            fail("whole numbers of at least 1 are needed", key=key, value=text, fix=f"For example {key}=128,512.")
        return tuple(one for one in found if one)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain numbers: `rows` as long as `head`; `note` says what must be known to read it.

    Numbers are shown with so many significant `digits`; files have them whole.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    digits: int = 4

    def to_dict(self) -> dict[str, object]:
        """For JSON: each row as a table from column to value."""
        rows = [dict(zip(self.head, row, strict=True)) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}


@dataclass(frozen=True, slots=True)
class Picture:
    """What to draw from a table: columns `y` over column `x`, one line or bar for each, or for each value of `by`.

    Of a tornado the three columns `y` are both ends of a bar and where it begins, the longest bar on top.  `marks` are
    published values, drawn as lines.  The numbers are the table's.
    """

    table: str
    x: str
    y: tuple[str, ...]
    by: str = ""
    kind: Literal["bar", "line", "tornado"] = "bar"
    title: str = ""
    unit: str = ""
    log: bool = False
    marks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """A claim that the study tests itself on: what, whether it holds, and the figures."""

    what: str
    holds: bool
    figures: str


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Tables, checks that can fail, remarks (what was not checkable included), assumptions and sources."""

    study: str
    title: str
    tables: tuple[Table, ...]
    checks: tuple[Check, ...] = ()
    remarks: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    sources: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    def table(self, title: str) -> Table:
        """The table with this title; KeyError when there is none."""
        for table in self.tables:
            if table.title == title:
                return table
        raise KeyError(title)

    def to_dict(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "schema": "tierform.study/1",
            "study": self.study,
            "title": self.title,
            "holds": self.holds,
            "tables": [table.to_dict() for table in self.tables],
            "checks": [{"what": one.what, "holds": one.holds, "figures": one.figures} for one in self.checks],
            "remarks": list(self.remarks),
            "assumptions": [
                {"subject": one.subject, "value": one.value, "kind": one.kind, "source": one.source, "note": one.note}
                for one in self.assumptions
            ],
            "sources": list(self.sources),
            "pictures": [asdict(one) for one in self.pictures],
        }
