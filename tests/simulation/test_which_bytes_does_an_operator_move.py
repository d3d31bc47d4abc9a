"""Which bytes cross between memory and a chip for one operator: by role, by refetch, beyond the buffers, by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tierform
from tierform import Inference
from tierform.chip.component import Refetch
from tierform.memory import load_memory
from tierform.simulation.aside import Aside, Fetched, aside_of
from tierform.simulation.traffic import NOTHING, MemoryBehind, Traffic
from tierform.workload import expand, model_from_config
from tierform.workload.expert_store import ExpertStore
from tierform.workload.graph import StageKind
from tierform.workload.kv_policy import KVPolicy
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role

GOLDEN = Path(__file__).parent / "golden"
# Inputs come 2.5 times, the other operand 3 times; half of the result comes back, and 1.75 of it is written.
AGAIN = Refetch(first=2.5, second=3.0, result_read=0.5, result_write=1.75)
X = Operand("x", (30,), "int8", Role.ACTIVATION)
W = Operand("w", (20,), "int8", Role.WEIGHT, static=True)
KEYS = Operand("keys", (40,), "int8", Role.KV_CACHE)
PLACES = Operand("places", (10,), "int8", Role.INDEX)
Y = Operand("y", (24,), "int8", Role.ACTIVATION)
LEARNT = Operand("w.gradient", (20,), "int8", Role.GRADIENT, trainable=True)
PASSING = Operand("g", (28,), "int8", Role.GRADIENT)


def memory_of(chip: str = "toy-tiles") -> MemoryBehind:
    return MemoryBehind(tierform.load_chip(GOLDEN / f"{chip}.yaml"))


def operator(inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], **given: Any) -> Operator:
    made = {"name": "op", "kind": Kind.MATMUL, "part": "ffn", "phase": Phase.FORWARD, "m": 1, "n": 1, "k": 1, **given}
    return Operator(inputs=inputs, outputs=outputs, **made)


@cache
def near() -> MemoryBehind:
    return memory_of()


def moved(made: Operator, refetch: Refetch | None = None, *, held: bool = False, on_chip: bool = False) -> Any:
    found = near().of_operator(made, held=held, on_chip=on_chip, **({} if refetch is None else {"refetch": refetch}))
    return found.read_B, found.write_B


def test_which_operands_crossnear() -> None:
    """Weights, keys and values and gradients of weights wait in memory; all else is handed on."""
    assert moved(operator((X, W), (Y,))) == (20, 0)
    assert moved(operator((X, W), (Y,)), held=True) == moved(operator((X, W), (Y,)), on_chip=True) == (0, 0)
    assert moved(operator((X, W), (Y,), origin=Origin.DEQUANTIZE)) == (0, 0)
    assert moved(operator((X, KEYS), (Y,), count=3)) == (3 * 40, 0)
    assert moved(operator((X, W), (KEYS,))) == (20, 40)
    assert moved(operator((PASSING, X), (LEARNT,), count=2)) == (0, 2 * 20)
    assert moved(operator((PASSING, X, LEARNT), (LEARNT,))) == (20, 20)
    assert moved(operator((PLACES, PASSING), (PASSING,))) == (0, 0)
    assert moved(operator((X,), (Y,), kind=Kind.COLLECTIVE)) == (0, 0)


def test_how_often_do_operands_cross_that_no_buffer_keeps() -> None:
    # What is handed on comes once from the buffer: 1.5 x 30; the weight 3 x 20; half of 24 back; 0.75 x 24 written.
    assert moved(operator((X, W), (Y,)), AGAIN) == (45 + 60 + 12, 18)
    assert moved(operator((X, W), (Y,), count=4), AGAIN) == (4 * 117, 4 * 18)
    assert moved(operator((X, W), (Y,)), AGAIN, held=True) == (45 + 12, 18)
    # Keys wait in memory: 3 x 40; written to the cache 1.75 x 40, half of it read.
    assert moved(operator((X, KEYS), (Y,)), AGAIN) == (45 + 120 + 12, 18)
    assert moved(operator((X, W), (KEYS,)), AGAIN) == (45 + 60 + 20, 70)
    # Two inputs that are handed on: 1.5 x 28 and 2 x 30; a learnt gradient 1.75 x 20.
    assert moved(operator((PASSING, X), (LEARNT,)), AGAIN) == (42 + 60 + 10, 35)
    # Not of a matmul: all inputs come 2.5 times, places in a table stay.
    assert moved(operator((KEYS, X, PLACES), (Y,), kind=Kind.SOFTMAX), AGAIN) == (100 + 45 + 12, 18)


def test_what_does_an_update_move() -> None:
    """Everything that it reads; weights, states and master weights that it writes; in crossbars not the weight."""
    state = Operand("w.state0", (80,), "int8", Role.OPTIMIZER_STATE)
    master = Operand("w.master", (60,), "int8", Role.MASTER_WEIGHT)
    update = operator((LEARNT, master, state), (W, master, state, X), phase=Phase.UPDATE, count=2, kind=Kind.OPTIMIZER)
    assert moved(update) == (2 * (20 + 60 + 80), 2 * (20 + 60 + 80))
    assert moved(update, held=True) == (2 * (20 + 60 + 80), 2 * (60 + 80))
    plain = operator((LEARNT, W, state), (W, state), phase=Phase.UPDATE, kind=Kind.OPTIMIZER)
    assert moved(plain) == (20 + 20 + 80, 20 + 80) and moved(plain, held=True) == (20 + 80, 80)


def test_what_does_a_look_up_move() -> None:
    """Rows of the table, as many as come out: 24 bytes of 20, so all of it, and 8 of it."""
    table = operator((PLACES, W), (Y,), kind=Kind.EMBEDDING)
    assert moved(table) == (20, 0)
    assert moved(replace(table, outputs=(replace(Y, shape=(8,)),))) == (8, 0)


def test_what_waits_in_memory_beyond_all_buffers() -> None:
    """Four arrays of 512 KiB and four vector units of 64 KiB hold 2,359,296 bytes.

    2,000,000 bytes in and 1,000,000 out of each of two groups: what is passed on is 6,000,000; half of what is too much
    is written and read again each way.  Weights are no part of it.
    """
    room = 4 * (512 + 64) * 1024
    given, made = replace(X, shape=(2_000_000,)), replace(Y, shape=(1_000_000,))
    over = (6_000_000 - room) / 2
    assert moved(operator((given, W), (made,), count=2)) == (2 * 20 + over, over)
    assert moved(operator((given, W), (made,), count=2), AGAIN, held=True) == (2 * 3_500_000 + over, 1_500_000 + over)
    small = replace(X, shape=(room - 24 - 20,))
    assert moved(operator((small, W), (Y,))) == (20, 0)  # it just fits
    # One byte more does not fit, but all that is passed on does.
    assert moved(operator((replace(X, shape=(room - 43,)), W), (Y,))) == (20, 0)
    # On a chip without buffers nothing is known of them.
    bare = memory_of()
    bare.on_chip_B = 0.0
    big = operator((replace(given, shape=(3_000_000,)), W), (made,))
    assert bare.of_operator(big, held=False, on_chip=False) == Traffic(20.0, 0.0)


def test_what_do_saved_tensors_move() -> None:
    assert near().of_saved(12.0, forward=True) == Traffic(0.0, 12.0)
    assert near().of_saved(12.0, forward=False) == Traffic(12.0, 0.0)
    inside = memory_of("toy-gpu")
    assert inside.of_saved(12.0, forward=True) == NOTHING
    assert inside.of_operator(operator((X, W), (Y,)), held=False, on_chip=False) == NOTHING
    assert inside.busy_s(Traffic(5.0, 5.0)) == inside.energy_J(Traffic(5.0, 5.0)) == 0.0


def test_how_long_and_with_how_much_energy_does_traffic_cross() -> None:
    """The device's own bandwidth and energy for the mix of 3 reads and a write, to a hundredth."""
    device: Any = load_memory("hbm2", stacks=1)
    traffic = Traffic(3e6, 1e6)
    assert near().busy_s(traffic) == pytest.approx(4e6 / device.effective_bandwidth_B_per_s("stream", 0.75))
    assert near().energy_J(traffic) == pytest.approx(device.transfer(4e6, "stream", 0.75).dynamic_energy_J)
    assert near().busy_s(NOTHING) == near().energy_J(NOTHING) == 0.0
    assert near().spill_cost(0, traffic) == pytest.approx(
        (device.name, near().busy_s(traffic), near().energy_J(traffic))
    )
    assert near().spill_cost(0, NOTHING) == (device.name, 0.0, 0.0)
    # A device is busy no longer than there is time.
    assert near().background_J(2.0, 0.5) == pytest.approx(device.background_energy_J(2.0, 0.5))
    assert near().background_J(2.0, 9.0) == pytest.approx(device.background_energy_J(2.0, 2.0))


def test_which_bytes_of_parts_that_wait_further_away_cross() -> None:
    """A quarter of the weights and a tenth of cache and gradients wait in tier 1, half of the states in tier 2."""
    far = memory_of()
    far._away = {
        "weights": {1: 0.25},
        "kv_cache": {1: 0.1},
        "gradients": {1: 0.1},
        "optimizer_states": {2: 0.5},
        "master_weights": {2: 0.5},
        "adapters": {2: 1.0},
        "activations": {1: 0.2, 2: 0.4},
    }
    assert far.has_spilled and not near().has_spilled and near().spilled(operator((X, W), (Y,))) == {}
    assert far.spilled(operator((X, W), (KEYS,), count=3)) == {1: Traffic(3 * 5.0, 3 * 4.0)}
    assert far.spilled(operator((X, W), (Y,), part="adapter")) == {2: Traffic(20.0, 0.0)}
    state = Operand("w.state0", (80,), "int8", Role.OPTIMIZER_STATE)
    master = Operand("w.master", (60,), "int8", Role.MASTER_WEIGHT)
    update = operator((LEARNT, master, state), (W, master, state), phase=Phase.UPDATE, kind=Kind.OPTIMIZER)
    assert far.spilled(update) == {1: Traffic(2.0, 5.0), 2: Traffic(70.0, 70.0)}
    # A look-up takes a quarter of the rows that come out.
    table = operator((PLACES, W), (replace(Y, shape=(8,)),), kind=Kind.EMBEDDING)
    assert far.spilled(table) == {1: Traffic(2.0, 0.0)}
    assert far.spilled_saved(Traffic(10.0, 30.0)) == {1: Traffic(2.0, 6.0), 2: Traffic(4.0, 12.0)}
    # A mixture's experts miss a share of their own, other weights are near.
    far._behind, far._away["weights"] = {1: 0.75, 2: 0.25}, {}
    up = operator((X, W), (Y,), weight="ffn.up")
    assert far.spilled(up, Fetched(0.75, 0.5)) == {1: Traffic(11.25, 0.0), 2: Traffic(3.75, 0.0)}
    assert far.late(up, Fetched(0.75, 0.5)) == {1: Traffic(7.5, 0.0), 2: Traffic(2.5, 0.0)}
    assert far.late(up, Fetched(0.75, 0.0)) == {}
    assert far.spilled(operator((X, W), (Y,), weight="attention.q")) == {}


def test_which_shares_does_a_task_keep_aside() -> None:
    """Eight experts of 3 x 16 x 32 weights in two layers, half of them cached: routing to the first four takes 3/4."""
    config = {
        "model_type": "mixtral",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 10,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    model = model_from_config(config)
    store = ExpertStore(cached=0.5, routing=(3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0))
    kept = Inference(batch=1, sequence=8, decode=2, kv=KVPolicy(offload=0.25), experts=store)
    work = expand(model, kept)
    found = aside_of(work)
    experts_B = 2 * 8 * 3 * 16 * 32 * 2
    assert found.shares == pytest.approx({"kv_cache": 0.25, "weights": 0.5 * experts_B / work.footprint.weights})
    experts = found.experts
    assert experts is not None and len(experts.weights) == 3 and experts.size_B == experts_B
    assert [experts.near(share * experts_B) for share in (0.0, 0.5, 0.6, 0.75, 1.0)] == [4, 4, 3, 2, 0]
    # One token takes two experts: each of the popular ones in 3/8 of all cases, of the others in 1/8.
    step = next(stage for stage in work.stages if stage.kind is StageKind.DECODE).blocks[1].operators
    assert experts.fetched(step, 4) == {
        name: Fetched(pytest.approx(0.25), pytest.approx(0.25)) for name in experts.weights
    }
    foretold = replace(experts, store=replace(store, ahead=0.6)).fetched(step, 4)  # 0.4 of them are fetched twice
    assert foretold == {name: Fetched(pytest.approx(0.35), pytest.approx(0.1)) for name in experts.weights}
    # Eight tokens touch 4 (1 - (5/8)^8) + 4 (1 - (7/8)^8) = 3.91 + 2.63 experts: not all eight, so the router decides.
    prompt = next(stage for stage in work.stages if stage.kind is StageKind.PREFILL).blocks[1].operators
    missed = 2.62557 / (3.90687 + 2.62557)
    assert experts.fetched(prompt, 4)["ffn.experts.up"] == Fetched(
        pytest.approx(missed, abs=1e-4), pytest.approx(missed, abs=1e-4)
    )
    even = replace(experts, store=ExpertStore(cached=0.5))  # 8 (1 - (3/4)^8) = 7.2 of equal ones
    assert even.fetched(prompt, 4)["ffn.experts.up"] == Fetched(pytest.approx(0.5), pytest.approx(0.5))
    long = expand(model, replace(kept, sequence=64)).stages[0].blocks[1].operators  # all eight: known beforehand
    assert even.fetched(long, 4)["ffn.experts.up"] == Fetched(pytest.approx(0.5), 0.0)
    assert aside_of(expand(model, Inference(batch=1, sequence=8))) == Aside()
    plain: Any = SimpleNamespace(task=replace(kept, experts=replace(store, cached=1.0)), model=model)
    assert aside_of(plain) == Aside({"kv_cache": 0.25})
