"""Does the ledger of serving see what is unequal, read a folder of its layout, and hold for a real run?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.serving.measured import NO_SKEW, fitted_skew, load_tables
from tierform.serving.oracle import StepShape
from tierform.serving.serve import serve
from tierform.validation import serving
from tierform.validation.serving_prompts import prompts_of
from tierform.validation.serving_runs import _Run, _with_blocks
from tierform.workload import load_model

TABLES = Path(serving.__file__).parent / "tables" / "serving"
TRACE = "vllm019-azure-conv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for ending in ("requests.csv", "batches.csv"):
        shutil.copy(TABLES / f"{TRACE}.{ending}", tmp_path)
    return tmp_path


def test_are_all_steps_equal_with_the_built_in_settings(folder: Path) -> None:
    (point,) = serving.ledger(folder).points
    assert point.passed and point.reference == 1484


def test_is_one_wrong_number_seen(folder: Path) -> None:
    path = folder / f"{TRACE}.batches.csv"
    lines = path.read_text().splitlines()
    cells = lines[101].split(",")
    cells[8] = str(int(cells[8]) + 1)  # free blocks of step 100
    lines[101] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    (point,) = serving.ledger(folder).points
    assert not point.passed and point.ours == 1483
    assert point.note == "the first unequal step is 100: free_blocks"


def test_do_settings_beside_a_trace_act_and_are_checked(folder: Path) -> None:
    settings = json.loads((TABLES / f"{TRACE}.settings.json").read_text())
    settings["engine"]["num_gpu_blocks"] += 100
    path = folder / f"{TRACE}.settings.json"
    path.write_text(json.dumps(settings))
    (point,) = serving.ledger(folder).points
    assert not point.passed
    settings["engine"]["blocks"] = 5
    path.write_text(json.dumps(settings))
    with pytest.raises(TierformError, match=r"engine\.blocks"):
        serving.ledger(folder)


def test_is_an_empty_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(TierformError, match="no serving reference"):
        serving.ledger(tmp_path)


def test_does_a_real_run_come_out_with_measured_tables() -> None:
    """vLLM 0.19 on an RTX 4090, 300 ShareGPT requests: means within 1.5 %, nine of ten within 3, 4 and 2 %.

    With all of the tables' points, of which a selection is built in, it is 2.0, 3.2 and 1.2 %.
    """
    run = _Run(TABLES, "RTX4090__Llama-3.1-8B")
    model = load_model("llama-3.1-8b")
    oracle = load_tables(TABLES / "rtx4090-tables", model.layers)
    assert oracle.skew == (NO_SKEW, NO_SKEW)  # as its meta.yaml says
    made = serve(model, "rtx-4090", run.requests, engine=_with_blocks(run.engine, run.blocks), oracle=oracle)
    for key, most in (("ttft_s", 0.03), ("tpot_s", 0.04), ("e2e_s", 0.02)):
        assert np.nanmean(made.array(key)) == pytest.approx(run.times[key].mean(), rel=0.015), key
        assert np.quantile(np.abs(made.array(key) / run.times[key] - 1), 0.9) <= most, key


def test_are_the_steps_of_a_real_run_its_own() -> None:
    """With its prompts, and a first step that holds the host for 0.387 s (request 1 is planned then), nothing is amiss.

    Two events that the run has at one moment are two that ours has in one step, and the other way round: of all first
    and last tokens of the first 250 requests.
    """
    run = _Run(TABLES, "RTX4090__Llama-3.1-8B")
    model = load_model("llama-3.1-8b")
    engine = replace(_with_blocks(run.engine, run.blocks), first_step_s=0.387)
    oracle = load_tables(TABLES / "rtx4090-tables", model.layers)
    made = serve(model, "rtx-4090", run.requests, engine=engine, oracle=oracle)
    queued = made.array("arrival_s")
    theirs = np.concatenate([queued + run.times["ttft_s"], queued + run.times["e2e_s"]]).reshape(2, -1)[:, :250].ravel()
    ours = np.stack([made.array("first_token_s"), made.array("last_token_s")])[:, :250].ravel()
    order = np.argsort(theirs, kind="stable")
    apart = np.diff(theirs[order]) > 0.002
    assert ((np.diff(ours[order]) > 1e-9) == apart).all()


def test_do_columns_say_which_prompts_begin_alike(tmp_path: Path) -> None:
    """The second prompt begins with 3 of the first one's 5 tokens; no earlier request, or too many, are refused."""
    rows = [
        {"request": "7", "prompt_tokens": "5", "same_as": "", "same_tokens": ""},
        {"request": "8", "prompt_tokens": "4", "same_as": "7", "same_tokens": "3"},
    ]
    found = prompts_of(tmp_path, "run", rows, tmp_path / "run.requests.csv")
    assert found is not None and found.at.tolist() == [0, 5, 9]
    assert found.ids.tolist()[5:] == [0, 1, 2, 8]
    for key, value in (("same_as", "8"), ("same_tokens", "5"), ("same_tokens", "some")):
        wrong = [rows[0], {**rows[1], key: value}]
        with pytest.raises(TierformError, match=key):
            prompts_of(tmp_path, "run", wrong, tmp_path / "run.requests.csv")


def test_does_the_skew_go_by_the_number_of_decodes(tmp_path: Path) -> None:
    """Two decodes: (15 - 10) / (20 - 10) = 0.5; four: (11 - 10) / (20 - 10) = 0.1; beside a chunk none was measured.

    Least squares of two rows of four: (1 * 10 + 3 * 10) / (100 + 100) = 0.2.
    """
    path = tmp_path / "skew.csv"
    rows = [(2, 0, 10, 20, 15), (4, 0, 10, 20, 11), (4, 0, 10, 20, 13)]
    text = "\n".join(",".join(str(one) for one in row) for row in rows)
    path.write_text(f"n,pc,t_mean_us,t_max_us,t_skew_us\n{text}\n")
    (numbers, alphas), beside = fitted_skew(path)
    assert numbers.tolist() == [2, 4] and alphas.tolist() == pytest.approx([0.5, 0.2])
    assert beside is NO_SKEW


def test_does_an_unequal_context_take_longer_where_a_profile_says_so(tmp_path: Path) -> None:
    source = TABLES / "rtx4090-tables"
    for name in ("dense.csv", "per_sequence.csv", "attention.csv"):
        shutil.copy(source / name, tmp_path)
    (tmp_path / "skew.csv").write_text("n,pc,t_mean_us,t_max_us,t_skew_us\n2,0,10,20,15\n")
    skewed, plain = load_tables(tmp_path, 32), load_tables(source, 32)
    mean, longest = plain.cost(StepShape(contexts=(1024, 1024))), plain.cost(StepShape(contexts=(1536, 1536)))
    half = skewed.cost(StepShape(contexts=(512, 1536)))
    assert half.seconds == pytest.approx((mean.seconds + longest.seconds) / 2, abs=2e-9)


def test_are_token_ids_as_good_as_hash_ids(tmp_path: Path) -> None:
    """Mooncake's prompts as tokens (1000 + 512 times the hash, and the place): every step is equal, as with hashes."""
    name = "vllm019-mooncake-conv"
    for ending in ("requests.csv", "batches.csv"):
        shutil.copy(TABLES / f"{name}.{ending}", tmp_path)
    settings = json.loads((TABLES / f"{name}.settings.json").read_text())
    del settings["content"]
    (tmp_path / f"{name}.settings.json").write_text(json.dumps(settings))
    rows = serving.rows_of(tmp_path / f"{name}.requests.csv")
    lines = (TABLES / f"{name}.hash_ids.jsonl").read_text().splitlines()
    with (tmp_path / f"{name}.tokens.jsonl").open("w") as opened:
        for row, line in zip(rows, lines, strict=False):
            ids = json.loads(line)["hash_ids"]
            tokens = (1000 + 512 * np.repeat(ids, 512) + np.tile(np.arange(512), len(ids)))[: int(row["prompt"])]
            opened.write(json.dumps({"token_ids": tokens.tolist()}) + "\n")
    steps = serving.ledger(tmp_path).points[0]
    assert steps.passed and steps.reference == 359


@pytest.mark.parametrize(
    ("ending", "change", "told"),
    [
        ("requests.csv", lambda text: text.replace(",374,", ",many,"), "a number is needed"),
        ("requests.csv", lambda text: text.replace("prompt", "promt"), "this column is missing"),
        ("requests.csv", lambda text: text.splitlines()[0] + "\n", "no row"),
        ("batches.csv", lambda text: text.replace("0@0", "x@0"), "cannot be read"),
        ("settings.json", lambda text: text.replace('"step_ns"', '"steps"'), "not a known key"),
        ("settings.json", lambda text: text.replace('"num_gpu_blocks"', '"block_size"'), "num_gpu_blocks"),
        ("settings.json", lambda text: text.replace("4000000", '"long"'), "of the wrong kind"),
    ],
)
def test_are_files_that_cannot_be_read_told(folder: Path, ending: str, change: object, told: str) -> None:
    shutil.copy(TABLES / f"{TRACE}.settings.json", folder)
    path = folder / f"{TRACE}.{ending}"
    text = path.read_text()
    changed = change(text)  # type: ignore[operator]
    assert changed != text
    path.write_text(changed)
    with pytest.raises(TierformError, match=told):
        serving.ledger(folder)


def test_are_missing_settings_told_with_what_to_write(folder: Path) -> None:
    for ending in ("requests.csv", "batches.csv"):
        (folder / f"{TRACE}.{ending}").rename(folder / f"other.{ending}")
    with pytest.raises(TierformError, match="settings of this trace are missing") as caught:
        serving.ledger(folder)
    assert '"engine"' in str(caught.value) and "other.settings.json" in str(caught.value)
