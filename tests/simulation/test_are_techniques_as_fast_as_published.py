"""Are quantized decoding and skipping as fast as published, and does a runtime say what its software does?"""

from __future__ import annotations

import shutil

import pytest

from tierform.simulation import simulate
from tierform.validation.techniques import _TABLES, BY_BYTES, _plan, ledger
from tierform.workload import Inference


@pytest.fixture(scope="module")
def found():
    return ledger()


def test_does_the_ledger_of_techniques_pass(found) -> None:
    assert found.passed
    held = [point for point in found.points if point.quantity == "speed-up of quantized decoding" and not point.fitted]
    skipped = [point for point in found.points if point.quantity == "speed-up of skipping"]
    assert len(held) == 30 and len(skipped) == 34
    # with 16-bit weights and key-value heads for every query head nothing of the published runs is guessed but a batch
    assert all(abs(one.relative_error) < 0.02 for one in skipped if one.case.startswith("llama-2-13b"))


def test_needs_llama_2_no_more_sublayers_than_its_bytes(found) -> None:
    """A layer's attention holds 4 x 4096² of the 6,607 million weights that a token reads.

    A token of 1 / 1.21 of the time is 17.36 % shorter: 17.36 % of 6,607 million are 1,147 million, 17.1 sublayers.
    The weights that are left out may be none but these, so with 18 sublayers it must be reached.
    """
    assert pytest.approx(17.1, abs=0.05) == (1 - 1 / 1.21) * 6607e6 / (4 * 4096**2)
    point = next(point for point in found.points if point.unit == "sublayers")
    needed = int(point.note.split(";")[0].removeprefix("needed are "))
    assert 1 < needed <= BY_BYTES and point.passed


@pytest.mark.parametrize(
    ("model", "form", "published"),
    [("llama-2-7b", "", 104.9), ("llama-2-7b", "int8-channel", 155.58), ("llama-2-7b", "int4-g32z", 196.8)],
)
def test_is_compiled_decoding_of_an_a100_as_fast_as_published(model: str, form: str, published: float) -> None:
    task = Inference(batch=1, sequence=5, decode=200, prefill=False, precision=_plan(form))
    seconds = simulate(model, task, "a100", thermal="none", runtime="gpt-fast").latency_s
    assert 200 / seconds == pytest.approx(published, rel=0.03)


def test_counts_a_folder_of_tables_what_it_has(tmp_path) -> None:
    for name in ("techniques_footprints.csv", "techniques_speedups.csv"):
        shutil.copy(_TABLES / name, tmp_path / name)
    few = (_TABLES / "techniques_skipping.csv").read_text().splitlines()
    (tmp_path / "techniques_skipping.csv").write_text("\n".join([*few[:6], ""]))
    skipped = [point for point in ledger(tmp_path).points if point.quantity == "speed-up of skipping"]
    assert [point.case for point in skipped] == ["llama-2-13b without 4 attention, batch 6"]
    assert not any(point.unit == "sublayers" for point in ledger(tmp_path).points)
