"""Do weights find their crossbars, spare ones their use, and edited mappings their way back?"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tierform import FineTuning, Full, Inference, LoRA, TierformError, load_chip, load_model, simulate
from tierform.mapping import Mapping, default_mapping, load_mapping
from tierform.workload import Workload, expand
from tierform.workload.precision import PrecisionPlan

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
        ("model: bert-large", "model: bert-base", "another model than 'bert-large'"),
        ("model: bert-large\n", "", "write: model: bert-large"),
        ("task: inference", "task: finetuning lora", "another task than 'inference'"),
        ("weight: ffn.up\n", "weight: ffn.upp\n", "did you mean 'ffn.up'"),
        # 1024 x 1024 weights of 8 bits in 128 x 128 cells of 2 bits: 8 x 8 x 4 crossbars.
        ("crossbars: 256\n", "crossbars: 1\n", "Right: 256"),
        ("copies: 1\n", "copies: 2\n", "Right: 1"),
        ("trainable: false", "trainable: true", "Right: False"),
        ("  layers: 24\n", "  layers: 23\n", "Right: 24"),
        ("  replicas: 1\n", "  replicas: 65\n", "at most 64"),
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


def test_is_an_edited_file_told_what_each_weight_really_takes(tmp_path: Path) -> None:
    # Every weight of one crossbar and many copies: each is told the crossbars of its size, and the tiles these need.
    workload, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    plan.save(tmp_path / "map.yaml")
    text = re.sub(r"crossbars: \d+", "crossbars: 1", (tmp_path / "map.yaml").read_text())
    (tmp_path / "map.yaml").write_text(re.sub(r"replicas: \d+", "replicas: 30", text))
    with pytest.raises(TierformError) as caught:
        load_mapping(tmp_path / "map.yaml", CHIP, workload)
    found = {str(problem.key): problem for problem in caught.value.problems}
    rights = [problem.fix for key, problem in found.items() if key.endswith(".crossbars")]
    # 768 x 768: 6 x 6 x 4; 768 x 3072 and back: four times as many.
    assert rights[:6] == ["Right: 144."] * 4 + ["Right: 576."] * 2
    # 144 crossbars 30 times are 4,320, and a tile has 1,536.
    assert "need 3 tiles" in found["weights.0.tiles"].what
    assert all(problem.line for problem in found.values())


def test_is_a_weight_without_its_entry_named(tmp_path: Path) -> None:
    workload, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    replace(plan, placements=plan.placements[1:]).save(tmp_path / "map.yaml")
    with pytest.raises(TierformError, match=r"layer/attention\.q runs on 'reram' and has no entry") as caught:
        load_mapping(tmp_path / "map.yaml", CHIP, workload)
    assert "144 crossbars in each of 12 layers" in str(caught.value.problems[-1].fix)


def test_is_an_entry_that_nothing_uses_left_out_and_told(tmp_path: Path) -> None:
    workload, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    plan.save(tmp_path / "map.yaml")
    text = (tmp_path / "map.yaml").read_text().replace("attention.q: reram", "attention.q: systolic")
    (tmp_path / "map.yaml").write_text(text)
    made = load_mapping(tmp_path / "map.yaml", CHIP, workload)
    assert made.placements_of("layer", "attention.q") == ()
    assert any("layer/attention.q" in note for note in made.notes)


def test_can_a_chip_without_memory_stream_weights_from_nowhere() -> None:
    alone = CHIP.vary({"memory": None})
    task = Inference(batch=1, sequence=64, precision=CHIP.precision)
    with pytest.raises(TierformError, match=r"no memory, and .* of weights are in no crossbars") as caught:
        default_mapping(alone, expand(load_model("bert-base"), task))
    assert "device: hbm2" in str(caught.value.problems[0].fix)
    # Where every weight is in cells nothing is missing.
    default_mapping(alone, expand(load_model("vit-base-patch16-224"), Inference(batch=1, precision=CHIP.precision)))


def test_are_formats_that_a_component_does_not_have_noted() -> None:
    wide = PrecisionPlan(weights="int8", activations="bf16")
    notes = default_mapping(
        CHIP, expand(load_model("bert-base"), Inference(batch=1, sequence=64, precision=wide))
    ).notes
    assert any("reram: crossbars take bf16 as 16-bit integers" in note for note in notes)
    _, plan = mapped(Inference(batch=1, sequence=64, precision=CHIP.precision))  # type: ignore[arg-type]
    assert not any("integers" in note or "charged as" in note for note in plan.notes)
    narrow = PrecisionPlan(weights="int8", activations="int4", kv_cache="int4")
    notes = default_mapping(
        CHIP, expand(load_model("bert-base"), Inference(batch=1, sequence=64, precision=narrow))
    ).notes
    assert any("systolic: no MAC in int4; run and charged as int8" in note for note in notes)
