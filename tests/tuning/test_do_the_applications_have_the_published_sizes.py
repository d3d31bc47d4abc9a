import pytest
import torch

import tierform
from tierform.tuning.applications import APPLICATIONS, SpatioTemporalTransformer, build, low_rank_settings
from tierform.tuning.lowrank import attach, choose_ranks, merged, parameter_count, trainable_count
from tierform.workload import FineTuning, LoRA, Training, expand, trace

# all parameters; trained with adapters alone; trained with adapters and the dense ends
PUBLISHED = {
    "swe": (45_424_451, 196_608, 7_792_451),
    "weather": (40_083_357, 196_608, 2_451_357),
    "covid": (40_027_250, 196_608, 2_395_250),
    "wind": (27_383_545, 196_608, 2_346_745),
}


def on_meta(name):
    with torch.device("meta"):
        return SpatioTemporalTransformer(tierform.load_model(f"hpt-{name}"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(name):
    total, adapters, learning = PUBLISHED[name]
    module = on_meta(name)
    assert parameter_count(module) == total == tierform.load_model(f"hpt-{name}").parameters
    settings = low_rank_settings()
    attach(module, settings, choose_ranks(settings, module))
    assert parameter_count(module) - total == adapters
    assert trainable_count(module) == learning
    alone = on_meta(name)
    settings = low_rank_settings(also_train=())
    attach(alone, settings, choose_ranks(settings, alone))
    assert trainable_count(alone) == adapters


def flops(workload):
    return sum(times * o.operations for _, _, o, times in workload.occurrences() if o.kind.name == "MATMUL")


@pytest.mark.parametrize(
    "name", ["wind", *(pytest.param(one, marks=pytest.mark.slow) for one in ("swe", "weather", "covid"))]
)
def test_the_module_computes_what_the_library_describes(name):
    model, module = tierform.load_model(f"hpt-{name}"), on_meta(name)
    stations = torch.zeros(1, model.fixed_tokens, model.input_size)
    ours = trace(module, (stations,), training=True)
    described = expand(model, Training(batch=1, sequence=model.fixed_tokens))
    assert flops(ours) == flops(described)
    assert ours.parameters == described.parameters
    settings = low_rank_settings()
    attach(module, settings, choose_ranks(settings, module))
    low = trace(module, (stations,), training=True)
    task = FineTuning(LoRA(8, ("q", "v"), ("embedding", "head")), batch=1, sequence=model.fixed_tokens)
    described = expand(model, task)
    assert low.trainable_parameters == described.trainable_parameters == PUBLISHED[name][2]
    assert flops(low) == flops(described)


def test_stations_are_one_sequence():
    module = build("wind").eval()
    assert sorted(APPLICATIONS.names()) == ["covid", "swe", "weather", "wind"]
    x = torch.randn(2, 57, 12)
    both = module(x)
    assert both.shape == (2, 57)
    torch.testing.assert_close(module(x[1:]), both[1:], rtol=1e-4, atol=1e-5)
    # what one station shows reaches the attention output of another
    layer = module.layers[0]
    tokens = torch.randn(1, 57, 512)
    changed = tokens.clone()
    changed[0, 3] += 1
    assert (layer(tokens)[0, 40] - layer(changed)[0, 40]).abs().max() > 1e-6


def test_a_merged_model_is_plain_and_equal():
    module = build("wind").eval()
    names = [name for name, _ in module.named_parameters()]
    settings = low_rank_settings()
    attach(module, settings, choose_ranks(settings, module))
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    x = torch.randn(1, 57, 12)
    plain = merged(module.eval())
    assert [name for name, _ in plain.named_parameters()] == names
    torch.testing.assert_close(plain(x), module(x), rtol=1e-4, atol=1e-4)
