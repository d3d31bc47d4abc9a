"""How many bytes and operations does each optimizer add, by hand?"""

from __future__ import annotations

import pytest
from small_models import small

from tierform.errors import TierformError
from tierform.workload import FineTuning, Full, Kind, LoRA, Parallelism, StageKind, Workload, expand, load_model
from tierform.workload.contract import check_workload


def tuned(optimizer: str, model: str = "llama-3.1-8b") -> Workload:
    task = FineTuning(Full(), batch=1, sequence=8, optimizer=optimizer)  # type: ignore[arg-type]
    made = expand(load_model(model) if "-" in model else small(model), task)
    check_workload(made)
    return made


# Llama 3.1 8B, a layer: q and o 4096 x 4096, k and v 1024 x 4096, gate, up and down 4096 x 14336; 32 of them.  Two
# tables of 128256 x 4096; 65 norms of 4096.
LAYERS = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
TABLES, NORMS = 2 * 128_256 * 4096, 65 * 4096


def test_adamw_keeps_two_moments() -> None:
    assert tuned("adamw").footprint.optimizer_states == 8 * (LAYERS + TABLES + NORMS)


def test_8_bit_adamw_keeps_bytes_and_scales_of_blocks() -> None:
    """Two bytes a number and two fp32 scales for each 2,048 of them; norms are vectors and keep 8 bytes a number."""
    matrices = LAYERS + TABLES
    assert tuned("adamw-8bit").footprint.optimizer_states == 2 * matrices + 2 * 4 * matrices // 2048 + 8 * NORMS


def test_adafactor_keeps_sums_of_rows_and_columns() -> None:
    sides = 32 * (2 * (4096 + 4096) + 2 * (1024 + 4096) + 3 * (4096 + 14336)) + 2 * (128_256 + 4096)
    assert tuned("adafactor").footprint.optimizer_states == 4 * (sides + NORMS)


def test_muon_keeps_one_moment_of_the_matrices_of_layers() -> None:
    assert tuned("muon").footprint.optimizer_states == 4 * LAYERS + 8 * (TABLES + NORMS)


def test_muon_multiplies_as_newton_and_schulz_do() -> None:
    """A matrix of (short, long): five times 2 short^2 long + short^3 multiply-accumulates."""
    layer = sum(
        number * (2 * short**2 * long + short**3)
        for number, short, long in ((2, 4096, 4096), (2, 1024, 4096), (3, 4096, 14_336))
    )
    made = tuned("muon")
    found = sum(o.macs * times for stage, _, o, times in made.occurrences() if stage.kind is StageKind.UPDATE)
    assert found == 5 * 32 * layer


@pytest.mark.parametrize("optimizer", ["adamw", "adamw-8bit", "adafactor", "sgd", "sgd-momentum"])
def test_an_update_counts_operations_of_each_number_once(optimizer: str) -> None:
    each = {"adamw": 14, "adamw-8bit": 24, "adafactor": 13, "sgd": 2, "sgd-momentum": 4}[optimizer]
    made = tuned(optimizer, "llama")
    found = sum(o.operations * times for _, _, o, times in made.occurrences() if o.kind is Kind.OPTIMIZER)
    assert found == pytest.approx(each * made.trainable_parameters)


def test_muon_needs_whole_matrices() -> None:
    task = FineTuning(LoRA(2), batch=2, sequence=8, optimizer="muon")
    for split in (Parallelism(2), Parallelism(data=2, zero=1)):
        with pytest.raises(TierformError, match="whole matrices"):
            expand(small("llama"), task, parallelism=split)
    expand(small("llama"), task, parallelism=Parallelism(data=2))
