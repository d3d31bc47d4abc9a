"""Do chips, components, classes, parts, tiles and stages add up to the whole, for any model, task, chip and split?"""

from __future__ import annotations

from math import fsum

import pytest
from drawn import chip_path, chips, decoder_families, families, law, models, run, tasks
from hypothesis import assume, given
from hypothesis import strategies as st
from small_models import METHODS, has_biases, recomputations, small

from tierform import BitFit, FineTuning, Inference, TierformError, load_chip
from tierform.simulation import Result
from tierform.workload.operator import Kind
from tierform.workload.parallel import Parallelism


def _on_chip_J(result: Result) -> float:
    """Energy that was booked on tiles: everything but links between chips, memory behind them, and what is static."""
    off = ("interconnect: ", "links: ", "memory: ")
    parts = result.energy_J_by_part.items()
    dynamic = [v for k, v in parts if not k.startswith(off) and not k.endswith((": idle and leakage", ": background"))]
    return fsum(dynamic)


@law(60)
@given(st.data())
def test_do_all_views_of_energy_time_and_operations_sum_to_the_total(data: st.DataObject) -> None:
    model = data.draw(models())
    task = data.draw(tasks(model))
    chip = data.draw(chips)
    result = run(model, task, chip, thermal=data.draw(st.sampled_from(["none", "steady"])))
    for view in (result.energy_J_by_component, result.energy_J_by_operator, result.energy_J_by_part):
        assert fsum(view.values()) == pytest.approx(result.energy_J, rel=1e-9)
        assert min(view.values()) > 0
    assert fsum(stage.energy_J for stage in result.stages) == pytest.approx(result.energy_J, rel=1e-9)
    assert fsum(stage.latency_s for stage in result.stages) == pytest.approx(result.latency_s, rel=1e-9)
    for table in (result.operations_by_component, result.operations_by_operator):
        assert fsum(table.values()) == pytest.approx(result.operations, rel=1e-9)
    assert fsum(row.operations for row in result.operators) == pytest.approx(result.operations, rel=1e-9)
    spilled = result.memory_spill_B
    if not spilled:
        assert fsum(result.energy_J_by_tile) == pytest.approx(_on_chip_J(result), rel=1e-9)
        moved = fsum(row.memory_B for row in result.operators)
        assert moved == pytest.approx(result.memory_read_B + result.memory_write_B, rel=1e-9)
    assert fsum(row.network_B for row in result.operators) == pytest.approx(result.network_B, rel=1e-9)
    assert all(0 <= value <= 1 + 1e-9 for value in result.utilization.values())
    assert all(row.utilization <= 1 + 1e-9 for row in result.operators)
    if result.link_bytes:
        bandwidth = load_chip(chip_path(chip)).network
        assert bandwidth is not None


@law(50)
@given(
    families, st.sampled_from(METHODS), recomputations, st.sampled_from([(2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1)])
)
def test_do_chips_of_training_do_together_what_one_does(
    family: str, method: object, recomputation: str, split: tuple[int, int, int]
) -> None:
    assume(not isinstance(method, BitFit) or has_biases(family))
    model = small(family)
    task = FineTuning(method, batch=2, sequence=16, recomputation=recomputation)  # type: ignore[arg-type]
    tensor, pipeline, data = split
    parts = Parallelism(tensor=tensor, pipeline=pipeline, data=data)
    one, all_chips = run(model, task, "toy-gpu"), run(model, task, "toy-gpu", parts)
    # Matrix products are shared without rest; low-rank inputs and routers are repeated by every chip of a tensor group.
    if tensor == 1:
        expected = one.operations_by_operator["matmul"]
        if data == 1:
            assert all_chips.operations_by_operator["matmul"] == pytest.approx(expected, rel=1e-12)
    repeated = _repeated(all_chips, tensor)
    assert all_chips.operations_by_operator["matmul"] - repeated == pytest.approx(
        one.operations_by_operator["matmul"], rel=1e-12
    )


@law(24)
@given(
    families,
    st.sampled_from(METHODS),
    st.sampled_from(["toy-gpu", "a100"]),
    st.sampled_from([(1, 1, 2), (2, 1, 2), (1, 2, 2), (2, 2, 4)]),
    st.booleans(),
)
def test_do_copies_that_shard_their_states_do_the_same_work_in_less_memory(
    family: str, method: object, chip: str, split: tuple[int, int, int], interleaved: bool
) -> None:
    """For stages 0 to 3: equal products, ever less memory for states, views that sum to the whole; energy for links."""
    assume(not isinstance(method, BitFit) or has_biases(family))
    tensor, pipeline, data = split
    model = small(family)
    task = FineTuning(method, batch=8, sequence=16)  # type: ignore[arg-type]
    parts = 2 if interleaved and pipeline > 1 else 1
    results = [
        run(model, task, chip, Parallelism(tensor, pipeline, data, zero=zero, interleave=parts), micro_batches=2)
        for zero in range(4)
    ]
    first = results[0]
    for result in results:
        assert result.operations_by_operator["matmul"] == pytest.approx(first.operations_by_operator["matmul"])
        for view in (result.energy_J_by_component, result.energy_J_by_operator, result.energy_J_by_part):
            assert fsum(view.values()) == pytest.approx(result.energy_J, rel=1e-9)
        assert fsum(stage.energy_J for stage in result.stages) == pytest.approx(result.energy_J, rel=1e-9)
        assert 0 <= result.communication["exposed_s"] <= result.latency_s
    held = [sum(v for part, v in r.memory_footprint_B.items() if part != "activations") for r in results]
    assert held[0] > held[1] >= held[2] >= held[3]
    assert results[2].energy_J_by_component["interconnect"] >= results[1].energy_J_by_component["interconnect"]
    assert results[3].energy_J_by_component["interconnect"] > results[2].energy_J_by_component["interconnect"]


def _repeated(result: Result, tensor: int) -> float:
    """What chips of a tensor group do once more than needed: products that the workload marks as whole."""
    run_ = result._run
    assert run_ is not None
    found = 0.0
    for booked in run_.ledger.booked:
        operator = booked.execution.operator
        if operator.kind is Kind.MATMUL and operator.shard is not None and operator.shard.value == "whole":
            found += operator.operations * booked.times * run_.scale * (tensor - 1) / tensor
    return found


@law(30)
@given(decoder_families, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_do_chips_of_inference_hold_the_keys_of_one(family: str, tensor: int, pipeline: int) -> None:
    model = small(family)
    task = Inference(batch=4, sequence=16, decode=2)
    one = run(model, task, "toy-gpu")
    many = run(model, task, "toy-gpu", Parallelism(tensor=tensor, pipeline=pipeline), micro_batches=1)
    kv, whole = many.memory_footprint_B["kv_cache"], one.memory_footprint_B["kv_cache"]
    if model.latent_attention:
        assert kv * pipeline >= whole  # one latent of each token on every chip
    elif model.layers % pipeline == 0:
        assert kv * tensor * pipeline >= whole * (1 - 1e-12)
        if pipeline == 1:
            assert kv * tensor == whole
    weights = many.memory_footprint_B["weights"] * tensor * pipeline
    assert weights >= one.memory_footprint_B["weights"]


@law(24)
@given(st.sampled_from(["a100", "h100"]), decoder_families, st.sampled_from([1, 2, 4]), st.booleans(), recomputations)
def test_does_attention_keep_its_fused_kernel_under_every_split(
    chip: str, family: str, tensor: int, training: bool, recomputation: str
) -> None:
    model = small(family)
    task = (
        FineTuning(batch=2, sequence=16, recomputation=recomputation)  # type: ignore[arg-type]
        if training
        else Inference(batch=2, sequence=16, decode=2)
    )
    result = run(model, task, chip, Parallelism(tensor=tensor))
    assert result._run is not None
    cores = [b.execution for b in result._run.ledger.booked if b.execution.operator.attention is not None]
    assert cores
    assert [item.operator.name for item in cores if not item.kernel] == []


def test_is_what_is_not_asked_for_refused() -> None:
    with pytest.raises(TierformError):
        run(small("gpt2"), Inference(batch=1, sequence=8), "toy-gpu", Parallelism(tensor=3))
