"""Is a model emulated on the tiles that `simulate` charges, and what is read from memory on no crossbar?"""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tierform  # noqa: E402
from tierform.chip.description import load_chip  # noqa: E402
from tierform.errors import TierformError  # noqa: E402
from tierform.mapping import default_mapping  # noqa: E402
from tierform.numerics import describe, emulate  # noqa: E402
from tierform.numerics.layer import CrossbarLinear  # noqa: E402
from tierform.numerics.placement import static_linears  # noqa: E402
from tierform.workload import Inference, expand  # noqa: E402
from tierform.workload.models import model_from_config  # noqa: E402
from tierform.workload.precision import PrecisionPlan  # noqa: E402


def bert(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 32, **changes}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=3)).eval()


@pytest.mark.parametrize("whose", ["own", "result"])
def test_are_tiles_those_of_the_mapping_that_is_charged(whose):
    model = bert()
    chip = load_chip("atleus")
    plan = (chip.precision or PrecisionPlan()).with_weights("M8F8")
    described = model_from_config(model.config.to_dict())
    # A batch of 24 is charged with another mapping than one sequence: with replicas, or with others.
    task = Inference(batch=24 if whose == "result" else 1, sequence=32, precision=plan)
    result = tierform.simulate(described, task, chip)
    expected = {(p.weight, layer): tiles for p in result.mapping.placements for layer, tiles in enumerate(p.tiles)}
    made = emulate(model, chip, temperature_K=result) if whose == "result" else emulate(model, chip)
    rows = {row["layer"]: row for row in describe(made)}
    for layer in range(2):
        name = f"bert.encoder.layer.{layer}."
        assert tuple(rows[name + "attention.self.query"]["tiles"]) == expected["attention.q", layer]
        assert tuple(rows[name + "output.dense"]["tiles"]) == expected["ffn.down", layer]


def asked(model, chip):
    """What is simulated: the model as its configuration says, one sequence."""
    plan = (chip.precision or PrecisionPlan()).with_weights("M8F8")
    return model_from_config(model.config.to_dict()), Inference(batch=1, sequence=32, precision=plan)


def charged_with(model, chip, beside):
    """The result of a run whose mapping reads these weights from memory, beside the crossbars."""
    described, task = asked(model, chip)
    workload = expand(described, task)
    blocks = workload.stages[0].waves[0].blocks
    named = {(b.name, o.weight) for b in blocks for o in b.operators if o.weight in beside}
    return tierform.simulate(described, task, chip, mapping=default_mapping(chip, workload, beside=named))


def test_do_weights_that_the_mapping_reads_from_memory_stay_digital():
    chip = load_chip("atleus")
    result = charged_with(bert(), chip, {"attention.v", "ffn.up"})
    assert {p.weight for p in result.mapping.placements}.isdisjoint({"attention.v", "ffn.up"})
    made = emulate(bert(), chip, temperature_K=result)
    left = {item.name for item in static_linears(made) if not isinstance(item.module, CrossbarLinear)}
    names = ("attention.self.value", "intermediate.dense")
    assert left == {f"bert.encoder.layer.{layer}.{name}" for layer in (0, 1) for name in names}
    assert len(describe(made)) == 12 - 4
    everything = {"attention.q", "attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down"}
    with pytest.raises(TierformError, match="no crossbar computes any"):
        emulate(bert(), chip, temperature_K=charged_with(bert(), chip, everything))


def test_is_a_chip_too_small_for_all_weights_used_as_it_is_charged():
    # A crossbar holds 128 x 32 weights of 8 bits, so a layer takes 4 * 64 and 2 * 128 of them, and the chip has 768.
    # Such models were refused, while `simulate` charges them one way or another.
    chip = load_chip("atleus").vary({"components.reram.crossbars": 1})
    large = bert(num_hidden_layers=4, hidden_size=512, intermediate_size=1024)
    spread = tierform.simulate(*asked(large, chip), chip, mapping="plain")
    assert False in {p.resident for p in spread.mapping.placements}
    region = {p.weight: p.tiles[0] for p in spread.mapping.placements if not p.resident}
    rows = {row["layer"]: row for row in describe(emulate(large, chip, temperature_K=spread))}
    assert len(rows) == 4 * 6
    assert tuple(rows["bert.encoder.layer.3.output.dense"]["tiles"]) == region["ffn.down"]
    held = {p.weight for p in tierform.simulate(*asked(large, chip), chip).mapping.placements}
    if held & {"attention.q", "attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down"}:
        emulated = {row["layer"] for row in describe(emulate(large, chip))}
        for item in static_linears(large):
            (part,) = item.parts
            assert (item.name in emulated) == (f"{item.role}.{part}" in held)
    else:
        with pytest.raises(TierformError, match="no crossbar computes any"):
            emulate(large, chip)
