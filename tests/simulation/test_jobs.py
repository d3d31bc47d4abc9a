"""Does a job say all that is asked, is it equal to what means the same, and does its file read back equal?"""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import tierform
from tierform import FineTuning, Inference, Job, LoRA, MicroBatches, Parallelism, PrecisionPlan, TierformError
from tierform.cli.simulate import command
from tierform.simulation.job_file import job_content, load_job, save_job

TASK = FineTuning(LoRA(rank=4, targets=("q", "v")), batch=2, sequence=64)
JOBS = (
    Job("bert-base", TASK, "atleus"),
    Job("gpt2", Inference(batch=2, sequence=32, decode=3), "a100", parallelism=Parallelism(2), thermal="none"),
    Job(
        "bert-base",
        FineTuning(batch=2, sequence=64, precision=PrecisionPlan().with_weights("M8F4")),
        "atleus-2.5d",
        micro_batches=MicroBatches(training=2),
        overflow="stream",
        mapping="plain",
        runtime="eager",
    ),
)


@pytest.mark.parametrize("job", JOBS, ids=["lora", "decode", "formats"])
@pytest.mark.parametrize("ending", [".yaml", ".json"])
def test_does_a_file_read_back_equal(job: Job, ending: str, tmp_path: Path) -> None:
    save_job(job, tmp_path / f"job{ending}")
    read = load_job(tmp_path / f"job{ending}")
    assert read == job
    assert hash(read) == hash(job)
    assert job_content(read) == job_content(job)


def test_are_jobs_equal_by_what_they_mean() -> None:
    loaded = Job(tierform.load_model("bert-base"), TASK, tierform.load_chip("atleus"))
    assert loaded == JOBS[0]
    assert len({loaded, JOBS[0]}) == 1
    assert Job("bert-base", TASK, "atleus-2.5d") != JOBS[0]
    assert Job("bert-base", TASK, "atleus", overflow="refuse") != JOBS[0]


def test_does_a_job_give_the_same_bytes_however_it_is_asked(tmp_path: Path) -> None:
    save_job(JOBS[0], tmp_path / "job.yaml")
    asked = [
        tierform.simulate("bert-base", TASK, "atleus"),
        JOBS[0].simulate(),
        load_job(tmp_path / "job.yaml").simulate(),
        next(iter(tierform.simulate_many([JOBS[0]]))),
        pickle.loads(pickle.dumps(JOBS[0].simulate())),
    ]
    texts = {json.dumps(result.to_dict(), sort_keys=True) for result in asked}
    assert len(texts) == 1


def test_are_many_jobs_done_in_order_by_several_processes() -> None:
    jobs = [Job("bert-base", Inference(batch=1, sequence=16 * n), "tpu-3d", thermal="none") for n in (1, 2, 3)]
    alone = [result.latency_s for result in tierform.simulate_many(jobs)]
    assert [result.latency_s for result in tierform.simulate_many(jobs, workers=2)] == alone
    assert alone == sorted(alone)


BROKEN = """schema: tierform.job/1
model: bert-bse
chip: atleuss
task:
  kind: finetuning
  method: {kind: lora, rnk: 4}
  batch: two
  optimizer: adamm
parallelism: {tensor: 0}
fidelity: cycles
micro_batches: {prefil: 2}
runtim: ideal
"""


def test_are_all_mistakes_of_a_file_told_at_once_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(BROKEN)
    with pytest.raises(TierformError) as caught:
        load_job(tmp_path / "job.yaml")
    found = {(problem.key, problem.line) for problem in caught.value.problems}
    assert found == {
        ("task.method.rnk", 6),
        ("task.batch", 7),
        ("task.optimizer", 8),
        ("parallelism.tensor", 9),
        ("fidelity", 10),
        ("micro_batches.prefil", 11),
        ("runtim", 12),
    }
    text = str(caught.value)
    assert "did you mean 'rank'" in text
    assert "did you mean 'runtime'" in text
    assert "did you mean 'adamw'" in text


def test_are_unknown_model_chip_and_runtime_told_together() -> None:
    with pytest.raises(TierformError) as caught:
        Job("bert-bse", TASK, "atleuss", runtime="ideall").simulate()
    assert [problem.nearest for problem in caught.value.problems] == ["bert-base", "atleus", "ideal"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"fidelity": "cycles"}, "did you mean 'cycle'"),
        ({"thermal": "hot"}, "not a known choice"),
        ({"overflow": "spill"}, "not a known choice"),
        ({"micro_batches": 0}, "at least 1"),
        ({"task": None}, "a task is needed"),
    ],
)
def test_is_a_wrong_choice_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(TierformError, match=word):
        Job(**{"model": "bert-base", "task": TASK, "chip": "atleus", **change})  # type: ignore[arg-type]


def test_does_the_command_write_and_take_a_job(tmp_path: Path) -> None:
    file, first, second = tmp_path / "job.yaml", tmp_path / "1.json", tmp_path / "2.json"
    asked = [
        "bert-base",
        "--chip",
        "atleus",
        "--task",
        "finetune",
        "--method",
        "lora",
        "--batch",
        "2",
        "--sequence",
        "64",
    ]
    run = CliRunner()
    made = run.invoke(command, [*asked, "--save-job", str(file), "--json", str(first)])
    assert made.exit_code == 0, made.output
    again = run.invoke(command, ["--job", str(file), "--json", str(second)])
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()
    both = run.invoke(command, ["bert-base", "--job", str(file)])
    assert isinstance(both.exception, TierformError)
    assert "the job file says it already" in str(both.exception)


def test_is_a_changed_model_not_saved_under_the_librarys_name(tmp_path: Path) -> None:
    model = tierform.load_model("gpt2")
    save_job(Job(model, Inference(batch=1, sequence=8), "a100"), tmp_path / "job.yaml")
    fewer = replace(model, layers=6)
    with pytest.raises(TierformError, match="no file"):
        save_job(Job(fewer, Inference(batch=1, sequence=8), "a100"), tmp_path / "other.yaml")
