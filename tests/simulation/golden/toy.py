"""The toy model, its three tasks and its chips, for ledgers that are derived by hand.

A GPT-2 of two layers: width 8, two heads of 4, feed-forward width 16, ten words, sixteen positions, ReLU, no dropout.
All numbers are bf16 (2 bytes) unless said otherwise.  Two sequences of three tokens: six rows of 8 values are 96 bytes.

On the toy GPU a product's operation takes 1 ps, any other operation 10 ps, a byte to or from memory 10 ps; a kernel
takes the longer of both.  An operation costs 1 pJ in a product and 2 pJ elsewhere, a byte 10 pJ; the board draws 1 W
all the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import tierform
from tierform import FineTuning, Full, Inference, LoRA
from tierform.simulation import Result
from tierform.workload import model_from_config
from tierform.workload.parallel import Parallelism

HERE = Path(__file__).parent
MODEL = model_from_config(
    {
        "model_type": "gpt2",
        "n_embd": 8,
        "n_head": 2,
        "n_layer": 2,
        "n_inner": 16,
        "n_positions": 16,
        "vocab_size": 10,
        "activation_function": "relu",
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "toy",
)
INFERENCE = Inference(batch=2, sequence=3, decode=2)
LORA = FineTuning(LoRA(rank=2, targets=("q", "v")), batch=2, sequence=3)
TRAINING = FineTuning(Full(), batch=2, sequence=3)
ALONE = Parallelism()


class Row(NamedTuple):
    """One operator: how often, operations, bytes read and written, of one execution; p for a product of matrices."""

    times: int
    operations: float
    read_B: float
    write_B: float
    product: bool = False

    @property
    def ps(self) -> float:
        """Picoseconds of one execution on the toy GPU."""
        return max(self.operations * (1 if self.product else 10), (self.read_B + self.write_B) * 10)

    @property
    def pJ(self) -> float:
        """Picojoules of one execution on the toy GPU, the idle board left out."""
        return self.operations * (1 if self.product else 2) + (self.read_B + self.write_B) * 10


Table = dict[str, Row]


def run(
    task: tierform.Inference | tierform.FineTuning,
    chip: str = "toy-gpu",
    split: Parallelism = ALONE,
    micro_batches: int = 1,
) -> Result:
    """The toy model's task on a toy chip, at one temperature."""
    path = HERE / f"{chip}.yaml"
    return tierform.simulate(
        MODEL, task, path, thermal="none", parallelism=split, micro_batches=micro_batches, mapping="plain"
    )


def check(result: Result, stage: str, table: Table, *, chips: int = 1, besides: frozenset[str] = frozenset()) -> None:
    """Every operator of a stage is in the table, and takes what its row says, on all chips together.

    `besides` are those that are checked elsewhere.
    """
    rows = {(row.block + "/" + row.name): row for row in result.operators if row.stage == stage}
    assert set(rows) - besides == set(table)
    wrong = []
    for name, row in table.items():
        times, found = row.times * chips, rows[name]
        expected = (
            times,
            times * row.operations,
            times * (row.read_B + row.write_B),
            round(times * row.ps, 3),
            round(times * row.pJ, 3),
        )
        counted = (
            found.times,
            found.operations,
            found.memory_B,
            round(found.busy_s * 1e12, 3),
            round(found.energy_J * 1e12, 3),
        )
        if counted != expected:
            wrong.append(f"{name}: derived {expected}, counted {counted}")
    assert wrong == []


def total(table: Table, what: str) -> float:
    """The sum of a column over all executions of a table."""
    return float(sum(row.times * getattr(row, what) for row in table.values()))


def seconds(result: Result, stage: str) -> float:
    """Picoseconds of a stage."""
    return next(entry.latency_s for entry in result.stages if entry.name == stage) * 1e12
