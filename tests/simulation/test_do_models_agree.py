"""Do whole models agree with measured machines, and can that validation fail?"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from tierform import TierformError
from tierform.validation import models
from tierform.validation.ledger import EngineLedger
from tierform.workload.split_text import read_parallel

TABLE = Path(models.__file__).parent / "tables" / "models.csv"


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in TABLE.read_text().splitlines() if not line.startswith("#")))


def run(folder: Path, chosen: list[dict[str, str]]) -> EngineLedger:
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return models.ledger(folder)


def of(group: str, *words: str) -> list[dict[str, str]]:
    return [row for row in rows() if row["group"] == group and all(word in row["case"] for word in words)]


@pytest.mark.parametrize(
    ("group", "words", "percent"),
    [
        ("mlenergy-dense-itl", ("70B", "B200"), 15.0),  # a chip on which no time of vLLM was fitted
        ("mlenergy-moe-itl", ("H100x1",), 10.0),  # a model on which none was
        ("mlenergy-dense-power", ("405B",), 10.0),
        ("mlenergy-dense-power", ("B200",), 8.0),
        ("vllm-static", ("Llama2-7B",), 8.0),
        ("first-token", ("70b",), 6.0),
    ],
)
def test_a_group_is_within_its_error(group: str, words: tuple[str, ...], percent: float, tmp_path: Path) -> None:
    found = [point for point in run(tmp_path, of(group, *words)).points if point.unit != "ratio"]
    assert found and median(abs(point.relative_error) for point in found) <= percent / 100


def test_a_wrong_measurement_fails_its_group(tmp_path: Path) -> None:
    chosen = of("mlenergy-dense-itl", "H100x1")[:3]
    assert run(tmp_path, chosen).passed
    slow = [{**row, "measured": str(2 * float(row["measured"]))} for row in chosen]
    failed = run(tmp_path, slow).failures
    assert [point.ours for point in failed] == [pytest.approx(1.5, abs=0.05)]
    assert "GenZ" in failed[0].note


def test_a_group_that_misses_its_bar_fails_when_it_gets_worse(tmp_path: Path) -> None:
    groups = models._groups()
    own = {row["group"] for row in rows()}
    missed = [group for group in groups.values() if group.bar is not None and not group.judged and group.name in own]
    held = next(group for group in groups.values() if group.judged and group.bar)
    for group in (*missed, replace(held, judged=False, recorded=2 * (held.bar or 0.0))):
        assert group.recorded is not None and group.bar is not None and group.recorded > group.bar
        assert models._verdict(group, [group.recorded + 0.4], own_rows=True).passed
        assert not models._verdict(group, [group.recorded + 0.6], own_rows=True).passed
        assert models._verdict(group, [99.0], own_rows=False).passed is None  # rows of another's are not ours


def test_fitted_rows_are_apart(tmp_path: Path) -> None:
    points = run(
        tmp_path, [*of("mlenergy-dense-itl", "8B-Instruct H100x1 b8"), *of("mlenergy-dense-itl", "B200x2 b8")]
    ).points
    assert [point.fitted for point in points if point.unit == "s"] == [True, False]


def test_a_row_may_name_its_own_runtime_and_a_refusal_is_told(tmp_path: Path) -> None:
    row = of("mlenergy-dense-itl", "8B-Instruct H100x1 b512")[0]
    ideal, own = ({**row, "runtime": name} for name in ("ideal", "vllm"))
    times = [point.ours for point in run(tmp_path, [ideal, own]).points if point.unit == "s"]
    # 511 sequences x 128,256 logits x 0.33 ns.
    assert times[1] - times[0] == pytest.approx(511 * 128_256 * 0.33e-9, rel=0.05)
    found = run(tmp_path, [{**row, "chip": "h999"}])
    assert not found.points and "h999" in " ".join(found.remarks)


def test_mistakes_in_a_table_are_told_all_at_once(tmp_path: Path) -> None:
    row = rows()[0]
    with pytest.raises(TierformError) as caught:
        run(tmp_path, [{**row, "metric": "step"}, {**row, "batch": "many"}])
    assert "step_s" in str(caught.value) and "many" in str(caught.value)
    (tmp_path / "cases.csv").write_text("group,case\na,b\n")
    with pytest.raises(TierformError, match="columns are missing"):
        models.ledger(tmp_path)


def test_every_row_is_of_the_library_has_a_source_and_a_group() -> None:
    groups = models._groups()
    for row in rows():
        assert row["source"] and row["group"] in groups
        assert not row["chip"].endswith(".yaml")
    assert {
        name for name, group in groups.items() if group.bar is not None and not group.judged and not group.reason
    } == set()


def test_a_published_run_is_split_as_its_source_says_where_a_table_cannot_say_it(tmp_path: Path) -> None:
    """Sequence parallelism: 34 s b h / 8 of 48 layers are 10.27 GB; without it 13 s b h are 31.4 GB."""
    row = of("memory-train", "22b activations selective")[0]
    silent = {key: value for key, value in row.items() if key != "parallel"}
    said, without = run(tmp_path, [silent]), run(tmp_path, [{**row, "parallel": ""}])
    assert "1 rows are split as their source says" in " ".join(said.remarks)
    assert said.points[0].ours == pytest.approx(10.27e9, rel=0.13)
    assert without.points[0].ours == pytest.approx(31.4e9, rel=0.06)
    other = run(tmp_path, [{**silent, "measured": "2e10"}])  # not a figure of that source
    assert other.points[0].ours == without.points[0].ours


def test_a_checkpoint_keeps_the_matrices_in_16_bits_that_its_config_exempts(tmp_path: Path) -> None:
    """A row that names fp8 for all of a checkpoint whose config.json does not; another's, and one in bf16, stay."""
    (told,) = of("mlenergy-dense-itl", "405B", " b8")
    named = {**told, "precision": "fp8-kv16"}
    elsewhere, plain = {**named, "source": "another report"}, {**told, "precision": "bf16"}
    by_format = [run(tmp_path, [row]) for row in (told, named, elsewhere, plain)]
    exempted = ["1 rows keep the matrices in 16 bits" in " ".join(found.remarks) for found in by_format]
    assert exempted == [False, True, False, False]
    exact, read, everywhere = (found.points[0].ours for found in by_format[:3])
    assert read == exact and everywhere < 0.97 * exact
    assert not by_format[3].points  # 810 GB in 16 bits do not fit in 640


def test_every_completed_split_can_be_read() -> None:
    for row in models._table(TABLE.with_name("models_splits.csv")):
        split = read_parallel(f"tensor={row['tensor']},pipeline={row['pipeline']},{row['parallel']}")
        assert split.tensor == int(row["tensor"])
        if not row["measured"]:  # every run of a source: a mixture over several boards
            assert split.expert == split.tensor > 1


def test_is_a_run_completed_by_its_figure_or_by_its_source() -> None:
    """Qwen3-30B on two boards is split by experts, whatever was measured; on one it is not."""
    source = "ml-energy/leaderboard:public/data/models/Qwen__Qwen3-30B-A3B-Instruct-2507__lm-arena-chat.json"
    row = {"source": source, "measured": "0.0123", "unit": "s", "tensor": "2", "pipeline": "1", "precision": "bf16"}
    made, said = models._completed([row, {**row, "tensor": "1"}, {**row, "source": "elsewhere"}])
    assert [one["parallel"] for one in made] == ["expert=2", "", ""]
    assert any(text.startswith("1 rows are split as their source says") for text in said)
