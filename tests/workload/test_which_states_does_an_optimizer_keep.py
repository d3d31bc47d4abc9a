"""How many bytes and operations does each optimizer add, by hand?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_models import small

from tierform.errors import TierformError
from tierform.workload import FineTuning, Full, Kind, LoRA, Parallelism, StageKind, Workload, expand, load_model
from tierform.workload.contract import check_workload
from tierform.workload.graph import Weight
from tierform.workload.operator import Operator
from tierform.workload.ops.galore import galore_name
from tierform.workload.ops.optimizer import gradient_reduction, state_numbers, update_operators
from tierform.workload.precision import PrecisionPlan


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


# -- the operators of one matrix of 6 x 10 in each of three experts -------------------------------------------------
PLAN = PrecisionPlan(weights="bf16", main_gradients="fp32", gradients="bf16", optimizer_states="fp32")
MATRIX = Weight("ffn.up", "layer", (6, 10), 1, 3, 2, "ffn", "bf16", trainable=True, matrix=True, whole=60)


def made(optimizer: str, plan: PrecisionPlan = PLAN, weight: Weight = MATRIX, sharing: int = 1) -> dict[str, Operator]:
    return {o.name.partition("ffn.up.")[2]: o for o in update_operators([weight], optimizer, plan, sharing)}


def sizes(operator: Operator) -> tuple[int, int, int, int]:
    return operator.m, operator.n, operator.k, operator.count


def test_what_does_each_kernel_of_muon_read_and_write() -> None:
    """Momentum: 7 operations a number on gradients (4 B) and momentum (4 B), and a direction (2 B).

    Five steps of X X', A A and B X; then 4 operations a number on direction, master weight (4 B) and weight (2 B).
    """
    found = made("muon")
    assert list(found) == ["momentum", "gram", "gram_square", "turn", "update"]
    assert (found["momentum"].input_B, found["momentum"].output_B) == (3 * 60 * (4 + 4), 3 * 60 * (4 + 2))
    assert found["momentum"].operations == pytest.approx(3 * 60 * 7)
    assert [sizes(found[name]) for name in ("gram", "gram_square", "turn")] == [
        (6, 6, 10, 15),
        (6, 6, 6, 15),
        (6, 10, 6, 15),
    ]
    assert (found["gram"].input_B, found["gram"].output_B) == (15 * 2 * 120, 15 * 72)
    assert (found["turn"].input_B, found["turn"].output_B) == (15 * (72 + 120), 15 * 120)
    assert (found["update"].input_B, found["update"].output_B) == (3 * 60 * (2 + 4), 3 * 60 * (2 + 4))
    assert found["update"].operations == pytest.approx(3 * 60 * 4)
    assert [operator.after for operator in found.values()] == [
        (),
        ("ffn.up.momentum",),
        ("ffn.up.gram",),
        ("ffn.up.gram_square",),
        ("ffn.up.turn",),
    ]
    # Without a master copy the weight itself is read.
    plain = made("muon", replace(PLAN, master_weights=None))["update"]
    assert (plain.input_B, plain.output_B) == (3 * 60 * (2 + 2), 3 * 60 * 2) and plain.operations == pytest.approx(720)


def test_what_does_each_kernel_of_galore_read_and_write() -> None:
    """Rank 2, a decomposition every 4 steps: (4 x 36 x 10 + 8 x 216) / 4 = 792 operations, a product 6.6 columns wide.

    AdamW's 14 operations on 2 x 10 numbers, and 2 on each weight.
    """
    found = made(galore_name(2, 4, 1.0))
    assert list(found) == ["decompose", "project", "moments", "unproject", "update"]
    products = [sizes(found[name]) for name in ("decompose", "project", "unproject")]
    assert products == [(6, 7, 10, 3), (2, 10, 6, 3), (6, 10, 2, 3)]
    # Gradients of 4 B; P of 6 x 2 and moments of 2 x 10 in 4 B; what is projected in 2 B.
    assert (found["project"].input_B, found["project"].output_B) == (3 * (48 + 240), 3 * 40)
    assert (found["moments"].input_B, found["moments"].output_B) == (3 * (40 + 160), 3 * (40 + 160))
    assert found["moments"].operations == pytest.approx(3 * 20 * 14)
    assert (found["unproject"].input_B, found["unproject"].output_B) == (3 * (48 + 40), 3 * 120)
    assert found["update"].operations == pytest.approx(3 * 60 * 2)
    assert made(galore_name(2, 4, 1.0), replace(PLAN, master_weights=None))["update"].operations == pytest.approx(360)
    # With a scale each of the 180 numbers of the step is multiplied once more.
    assert made(galore_name(2, 4, 0.25), replace(PLAN, master_weights=None))["update"].operations == pytest.approx(540)
    assert (found["update"].input_B, found["update"].output_B) == (3 * 60 * (2 + 4), 3 * 60 * (2 + 4))
    # A rank as large as the short side is no projection: AdamW on the whole matrix.
    assert list(made(galore_name(6, 4, 1.0))) == ["update"] and next(iter(made(galore_name(5, 4, 1.0)))) == "decompose"


def test_what_does_a_copy_update_of_what_is_shared() -> None:
    """Seven copies: 60 numbers in parts of 9; AdamW reads 4 B of gradient, 4 of master weight and 8 of moments."""
    (alone,), (part,) = made("adamw").values(), made("adamw", sharing=7).values()
    assert (alone.input_B, alone.output_B) == (3 * 60 * (4 + 4 + 8), 3 * 60 * (2 + 4 + 8))
    assert (part.input_B, part.output_B) == (3 * 9 * (4 + 4 + 8), 3 * 9 * (2 + 4 + 8))
    assert alone.operations == pytest.approx(3 * 60 * 14) and part.operations == pytest.approx(3 * 9 * 14)
    # Adafactor: sums of 6 rows and 10 columns, of which a copy keeps 1 and 2.
    (sums,), (shared,) = made("adafactor").values(), made("adafactor", sharing=7).values()
    assert sums.input_B - 3 * 60 * (4 + 4) == 3 * 4 * (6 + 10) and shared.input_B - 3 * 9 * (4 + 4) == 3 * 4 * (1 + 2)


def test_which_matrices_have_states_of_eight_bits() -> None:
    """From 4,096 numbers on, with a scale for each 2,048 of them that are begun."""
    large, small_one = replace(MATRIX, shape=(64, 65)), replace(MATRIX, shape=(63, 65))
    assert state_numbers(large, "adamw-8bit", PLAN) == [("int8", 4160)] * 2 + [("fp32", 3)] * 2
    assert state_numbers(small_one, "adamw-8bit", PLAN) == [("fp32", 4095)] * 2
    assert state_numbers(replace(MATRIX, shape=(64, 64)), "adamw-8bit", PLAN)[0] == ("int8", 4096)
    assert state_numbers(large, "adamw-8bit", PLAN, 2) == [("int8", 2080)] * 2 + [("fp32", 2)] * 2
    assert state_numbers(replace(large, matrix=False), "adamw-8bit", PLAN) == [("fp32", 4160)] * 2


@pytest.mark.parametrize(("scattered", "kind", "kept_B"), [(False, "all_reduce", 480), (True, "reduce_scatter", 120)])
def test_what_does_a_reduction_of_gradients_send(scattered: bool, kind: str, kept_B: int) -> None:
    found = gradient_reduction("gradients", 240, "bf16", 4, copies=True, scattered=scattered)
    assert (found.collective, found.participants, found.copies) == (kind, 4, True)
    assert (found.input_B, found.output_B, found.operations) == (480, kept_B, 0.0)
