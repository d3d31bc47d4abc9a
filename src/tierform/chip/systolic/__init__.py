"""Systolic arrays: closed-form timing and accesses, the component of a chip, SCALE-Sim's files and accounting."""

from tierform.chip.systolic.component import SystolicArrays, SystolicParameters
from tierform.chip.systolic.folds import DATAFLOWS, OVERLAPS, Sparsity, accesses, cycles, fold_count

__all__ = [
    "DATAFLOWS",
    "OVERLAPS",
    "Sparsity",
    "SystolicArrays",
    "SystolicParameters",
    "accesses",
    "cycles",
    "fold_count",
]
