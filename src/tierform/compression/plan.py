"""What becomes of each matrix of a model, in one file that compression writes and other commands read.

    {"schema": "tierform.compression-plan/1", "model": {...}, "method": "gptq", "test": {...},
     "matrices": {"model.layers.0.self_attn.q_proj": {"format": "int4-g64z", "density": "1"}},
     "skipped": ["model.layers.3.attention"]}

A plan belongs to a model: names and shapes of the matrices are kept, and a plan for another model is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tierform.compression.formats import DENSE, Density, WeightFormat
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_json, write_json

SCHEMA = "tierform.compression-plan/1"
FILE_NAME = "compression-plan.json"


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """One matrix: its shape (outputs, inputs), its format, how many of its weights are kept."""

    shape: tuple[int, int]
    format: WeightFormat
    density: Density = DENSE

    @property
    def bits_per_weight(self) -> float:
        """Bits of one weight of the dense matrix; a mask of one bit a weight where pruning has no pattern."""
        density = self.density
        if density.dense:
            return self.format.bits_per_weight(self.shape[1])
        mask = 1.0 if not density.of else density.kept * max(1, (density.of - 1).bit_length()) / density.of
        element = self.format.bits * density.share
        return element + self.format.bits_per_weight(self.shape[1]) - self.format.bits + mask

    @property
    def size_B(self) -> float:
        """Bytes of the matrix as it would be stored."""
        return self.shape[0] * self.shape[1] * self.bits_per_weight / 8


@dataclass(frozen=True, slots=True)
class Plan:
    """All matrices by module name, sublayers that are left out, and how it was made."""

    model: str
    method: str
    matrices: Mapping[str, MatrixPlan]
    skipped: tuple[str, ...] = ()
    exact_B: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bits_per_weight(self) -> float:
        """Mean bits of the matrices' weights."""
        weights = sum(one.shape[0] * one.shape[1] for one in self.matrices.values())
        return 8 * sum(one.size_B for one in self.matrices.values()) / weights if weights else 0.0

    @property
    def size_B(self) -> float:
        """Bytes of the whole model: matrices, and what stays exact."""
        return self.exact_B + sum(one.size_B for one in self.matrices.values())

    def to_dict(self) -> dict[str, object]:
        """As in the file."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "method": self.method,
            "matrices": {
                name: {"shape": list(one.shape), "format": str(one.format), "density": str(one.density)}
                for name, one in self.matrices.items()
            },
            "skipped": list(self.skipped),
            "exact_B": self.exact_B,
            "size_B": round(self.size_B),
            "bits_per_weight": self.bits_per_weight,
            "settings": dict(self.settings),
        }

    def check(self, shapes: Mapping[str, tuple[int, int]], file: str = "") -> None:
        """TierformError with every matrix of the plan that the model does not have."""
        problems = []
        for name, one in self.matrices.items():
            if name not in shapes:
                problems.append(
                    Problem("the model has no such matrix", file or None, key=name, nearest=nearest(name, shapes))
                )
            elif tuple(shapes[name]) != one.shape:
                problems.append(
                    Problem(f"the model's matrix is {shapes[name]}", file or None, key=name, value=one.shape)
                )
        if problems:
            head = Problem(
                "the plan is for another model", file or None, value=self.model, fix="Compress this model anew."
            )
            raise TierformError([head, *problems[:5]])


_KEYS = ("schema", "model", "method", "matrices", "skipped", "exact_B", "size_B", "bits_per_weight", "settings")
_MATRIX_KEYS = ("shape", "format", "density")
_MOST, _MOST_B = 1 << 31, 1 << 60  # outputs or inputs of a matrix; bytes of a model


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write the file."""
    write_json(path, plan.to_dict())


def read_plan(path: Path | str) -> Plan:
    """A plan from its file, or from a compressed model's folder; every mistake is a TierformError."""
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    found = read_json(path).content
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        fail("this is not a compression plan", file=str(path), key="schema", fix=f"The schema is {SCHEMA}.")
    _refuse_unknown(found, _KEYS, str(path), "")
    matrices = {}
    if not isinstance(found.get("matrices"), dict) or not isinstance(found.get("skipped", []), list):
        fail("a plan has a table of matrices and a list of skipped sublayers", file=str(path), key="matrices")
    for name, one in found["matrices"].items():
        if not isinstance(one, dict) or not _is_shape(one.get("shape")):
            fail("a matrix has a shape of two sizes and a format", file=str(path), key=str(name), value=one)
        _refuse_unknown(one, _MATRIX_KEYS, str(path), f"{name}.")
        matrices[str(name)] = MatrixPlan(
            (one["shape"][0], one["shape"][1]),
            WeightFormat.parse(str(one.get("format", ""))),
            Density.parse(one.get("density", "1")),
        )
    exact_B, settings = found.get("exact_B", 0), found.get("settings", {})
    if type(exact_B) not in (int, float) or not 0 <= exact_B <= _MOST_B:
        fail("a number of bytes is needed", file=str(path), key="exact_B", value=exact_B)
    if not isinstance(settings, dict):
        fail("keys with values are needed", file=str(path), key="settings", value=settings)
    return Plan(
        str(found.get("model", "")),
        str(found.get("method", "")),
        matrices,
        tuple(str(one) for one in found.get("skipped", [])),
        int(exact_B),
        settings,
    )


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(one) is int and 0 < one <= _MOST for one in value)


def _refuse_unknown(found: Mapping[str, object], known: tuple[str, ...], file: str, prefix: str) -> None:
    problems = [
        Problem("unknown key", file, key=f"{prefix}{key}", nearest=nearest(key, known))
        for key in found
        if key not in known
    ]
    if problems:
        raise TierformError(problems)
