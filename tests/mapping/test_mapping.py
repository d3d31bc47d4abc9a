"""Do weights find their crossbars, spare ones their use, and edited mappings their way back?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform import FineTuning, Full, Inference, LoRA, TierformError, load_chip, load_model, simulate
from tierform.mapping import Mapping, default_mapping, load_mapping
from tierform.workload import Workload, expand

CHIP = load_chip("atleus")


def mapped(task: Inference | FineTuning, model: str = "roberta-base") -> tuple[Workload, Mapping]:
    workload = expand(load_model(model), task)
    return workload, default_mapping(CHIP, workload)


def test_do_operators_go_where_the_default_rule_says() -> None:
    _, plan = mapped(FineTuning(LoRA(8), batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    of = {key.rsplit("/", 1)[1]: component for key, component in plan.assignments.items() if "/layer" in key}
    assert of["attention.q"] == of["ffn.up"] == of["ffn.down.grad_input"] == "reram"
    assert of["attention.scores"] == of["attention.context"] == "systolic"
    assert of["attention.q.lora_a"] == of["attention.q.lora_b.grad_weight"] == "systolic"
    assert of["attention.softmax"] == of["attention_norm"] == "vector"


def test_does_every_operator_of_a_gpu_run_on_it() -> None:
    workload = expand(load_model("gpt2"), FineTuning(Full(), batch=1, sequence=64))
    plan = default_mapping(load_chip("a100"), workload)
    assert set(plan.assignments.values()) == {"gpu"}
    assert plan.placements == ()


def test_do_spare_crossbars_replicate_and_never_overflow() -> None:
    _, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    assert any(placement.replicas > 1 for placement in plan.placements)
    used = plan.crossbars_used("reram")
    assert 0.8 * 73728 < used <= 73728


def test_does_every_crossbar_sit_on_a_tile_that_has_room() -> None:
    _, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    valid = set(CHIP.tiles_of("reram"))
    for placement in plan.placements:
        assert len(placement.tiles) == placement.layers
        for tiles in placement.tiles:
            assert set(tiles) <= valid
            assert len(tiles) * 1536 >= placement.crossbars * placement.replicas


def test_does_a_mapping_read_back_and_cost_the_same(tmp_path: Path) -> None:
    task = FineTuning(LoRA(8), batch=2, sequence=64)
    first = simulate("roberta-base", task, "atleus")
    assert first.mapping is not None
    first.mapping.save(tmp_path / "map.yaml")
    again = simulate("roberta-base", task, "atleus", mapping=tmp_path / "map.yaml")
    assert again.latency_s == first.latency_s
    assert again.energy_J == first.energy_J


def test_does_an_edited_mapping_change_the_result(tmp_path: Path) -> None:
    task = Inference(batch=1, sequence=64)
    first = simulate("roberta-base", task, "atleus")
    assert first.mapping is not None
    first.mapping.save(tmp_path / "map.yaml")
    text = (tmp_path / "map.yaml").read_text().replace("attention.q: reram", "attention.q: systolic")
    (tmp_path / "map.yaml").write_text(text)
    moved = simulate("roberta-base", task, "atleus", mapping=tmp_path / "map.yaml")
    assert moved.operations_by_component["systolic"] > first.operations_by_component["systolic"]
    assert moved.operations == first.operations


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("attention.q: reram", "attention.q: rream", "did you mean 'reram'"),
        ("attention.q: reram", "attention.qq: reram", "no such operator"),
        ("attention.scores: systolic", "attention.scores: reram", "cannot run"),
        ("chip: atleus", "chip: a100", "another chip"),
        ("prefill: 1", "prefill: 0", "at least 1"),
        ("  replicas: 1\n", "  replicas: -1\n", "at least 1"),
        ("tiles:\n  - [16", "tiles:\n  - [1600", "no tile"),
        ("schema: tierform.mapping/1", "schema: tierform.mapping/2", "schema"),
    ],
)
def test_is_a_wrong_mapping_refused_with_its_line(tmp_path: Path, old: str, new: str, word: str) -> None:
    workload, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision), "bert-large")  # type: ignore[arg-type]
    plan.save(tmp_path / "map.yaml")
    text = (tmp_path / "map.yaml").read_text()
    assert old in text
    (tmp_path / "map.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(TierformError, match=word) as caught:
        load_mapping(tmp_path / "map.yaml", CHIP, workload)
    assert caught.value.problems[0].file is not None


def test_are_too_many_replicas_refused(tmp_path: Path) -> None:
    workload, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision), "bert-large")  # type: ignore[arg-type]
    plan.save(tmp_path / "map.yaml")
    (tmp_path / "map.yaml").write_text((tmp_path / "map.yaml").read_text().replace("replicas: 1", "replicas: 2", 1))
    with pytest.raises(TierformError, match="73728"):
        load_mapping(tmp_path / "map.yaml", CHIP, workload)


def test_do_all_experts_sit_in_crossbars_though_few_are_touched() -> None:
    model = load_model("qwen1.5-moe-a2.7b")
    workload = expand(model, Inference(batch=1, sequence=1, precision=CHIP.precision))  # type: ignore[arg-type]
    plan = default_mapping(CHIP, workload)
    experts = next(placement for placement in plan.placements if "experts.up" in placement.weight)
    # 60 experts of 2048 x 1408 at 8 bits: 16 x 44 crossbars each, though one token touches four.
    assert experts.crossbars == 60 * 16 * 44


def test_is_nothing_unpacked_where_crossbars_apply_the_scale() -> None:
    from tierform import QLoRA

    task = FineTuning(QLoRA(8), batch=1, sequence=64)
    on_cells, on_gpu = simulate("bert-base", task, "atleus"), simulate("bert-base", task, "a100")
    unpacked = {
        r.chip: sum(o.busy_s for o in r.operators if o.name.endswith(".dequantize")) for r in (on_cells, on_gpu)
    }
    assert unpacked["atleus"] == 0
    assert unpacked["a100"] > 0


def test_does_gradient_accumulation_survive_a_saved_mapping(tmp_path: Path) -> None:
    task = FineTuning(LoRA(8), batch=2, sequence=64, gradient_accumulation=3)
    first = simulate("bert-base", task, "atleus")
    assert first.mapping is not None
    first.mapping.save(tmp_path / "map.yaml")
    assert simulate("bert-base", task, "atleus", mapping=tmp_path / "map.yaml").latency_s == first.latency_s
