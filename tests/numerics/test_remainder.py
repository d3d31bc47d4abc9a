"""Do adapters that take the large weights over leave the product as it was, and cells with smaller errors?"""

import copy

import pytest
import torch
from torch import nn

from tierform.errors import TierformError
from tierform.numerics import crossbar_layers, emulate, new_chip_instance, take_peaks
from tierform.numerics.digital import DigitalShare
from tierform.numerics.placement import role_of
from tierform.numerics.remainder import block_peaks, smallest_range


def low_rank(outputs, inputs, rank, noise):
    generator = torch.Generator().manual_seed(3)
    left = torch.randn(outputs, rank, generator=generator)
    return left @ torch.randn(rank, inputs, generator=generator) + noise * torch.randn(
        outputs, inputs, generator=generator
    )


def scales(weight, outputs, inputs):
    return float(block_peaks(weight, outputs, inputs).square().mean().sqrt())


def test_block_peaks_are_those_of_plain_loops():
    matrix = torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    found = block_peaks(matrix, 3, 4)
    for row in range(7):
        for column in range(10):
            a, b = row // 3 * 3, column // 4 * 4
            assert found[row, column] == matrix[a : a + 3, b : b + 4].abs().max()


@pytest.mark.parametrize(("shape", "rank"), [((48, 40), 4), ((20, 70), 8), ((6, 5), 8)])
def test_the_rest_of_a_weight_has_a_smaller_range_than_any_part_of_largest_norm_leaves(shape, rank):
    weight = low_rank(*shape, 3, 0.5)
    taken = smallest_range(weight, rank, 16, 32)
    assert taken.up.shape == (shape[0], rank)
    assert taken.down.shape == (rank, shape[1])
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    usual = weight - (u[:, :rank] * s[:rank]) @ v[:rank]
    rest = scales(weight - taken.product, 16, 32)
    assert rest < 0.5 * scales(weight, 16, 32)
    assert rest <= scales(usual, 16, 32) + 1e-5
    assert smallest_range(weight, rank, 16, 32).product.equal(taken.product)


def test_nothing_is_taken_where_nothing_would_be_gained():
    taken = smallest_range(torch.eye(64), 1, 64, 64)
    assert float((torch.eye(64) - taken.product).abs().max()) <= 1.0
    assert float(smallest_range(torch.zeros(8, 8), 2, 8, 8).product.abs().max()) == 0


def small_models():
    from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    gpt = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=20,
            n_embd=32,
            n_layer=1,
            n_head=2,
            n_positions=8,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.3,
        )
    )
    vit = ViTForImageClassification(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=8,
            patch_size=4,
            num_channels=1,
            initializer_range=0.3,
        )
    )
    rows = torch.randint(0, 20, (6, 8), generator=torch.Generator().manual_seed(2))
    return [
        (gpt.eval(), {"input_ids": rows}),
        (vit.eval(), {"pixel_values": torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))}),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["Conv1D", "Linear"])
def test_adapters_that_took_over_give_the_same_answers_with_smaller_errors(which):
    pytest.importorskip("peft")
    from tierform.numerics.adapters import Adapting

    model, inputs = small_models()[which]
    adapting = Adapting(rank=2, targets=("all",), peak_rank=8)
    exact = emulate(model, "atleus")
    peaks = adapting.peaks(exact)
    assert set(peaks) == {layer.layer_name for layer in crossbar_layers(exact)}

    def answers(network):
        with torch.no_grad():
            return network(**inputs).logits

    plain = answers(model)
    in_float = answers(adapting.attach(copy.deepcopy(model), 0, peaks))
    assert torch.allclose(in_float, plain, atol=1e-4 * float(plain.abs().max()))
    assert torch.equal(answers(model), plain)  # the model given is as it was

    def error(peak_rank):
        chip = emulate(model, "atleus", noise="programming-2pct", fidelity="weights")
        adapted = Adapting(rank=2, targets=("all",), peak_rank=peak_rank).attach(chip, 0)
        total = 0.0
        for number in (1, 2, 3):
            new_chip_instance(adapted, number)
            total += float((answers(adapted) - plain).square().mean())
        return total

    assert error(8) < 0.5 * error(0)


def test_channels_that_are_digital_anyway_take_no_part_of_the_rank():
    torch.manual_seed(0)
    linear = nn.Linear(256, 64)
    with torch.no_grad():
        linear.weight.copy_(low_rank(64, 256, 3, 0.2))
        linear.weight[:, 5] *= 20.0  # one channel of large weights and massive inputs
    inputs = torch.randn(32, 256)
    inputs[:, 5] *= 30.0

    def chip():
        return emulate(
            nn.Sequential(linear),
            "atleus",
            scale="column",
            digital=DigitalShare(1),
            calibration=lambda network: network(inputs),
        )

    (layer,) = crossbar_layers(chip())
    assert layer.part.channels.tolist() == [5]

    def left(peaks):
        rest = layer.matrix - peaks.product
        rest[:, 5] = 0
        return scales(rest, 1, layer.form.rows)

    unaware = smallest_range(layer.matrix, 3, 1, layer.form.rows, energy=layer.energy)
    assert left(take_peaks(chip(), 3)["0"]) < 0.8 * left(unaware)


def test_what_holds_the_large_weights_stays_while_the_rest_learns():
    pytest.importorskip("peft")
    from tierform.numerics.adapters import Adapting, train_adapters

    model, inputs = small_models()[0]
    rows = {**inputs, "labels": inputs["input_ids"]}
    adapted = Adapting(rank=2, targets=("all",), peak_rank=3).attach(emulate(model, "atleus"), 0)

    def factors():
        return {name: p.detach().clone() for name, p in adapted.named_parameters() if ".lora_" in name}

    before = factors()
    losses = train_adapters(adapted, [rows] * 20, steps=20, learning_rate=1e-2, noisy=False)
    assert losses[-1] < 0.9 * losses[0]
    for name, after in factors().items():
        learnt, kept = (after[:2], after[2:]) if ".lora_A" in name else (after[:, :2], after[:, 2:])
        old = before[name]
        assert torch.equal(kept, old[2:] if ".lora_A" in name else old[:, 2:])
        assert not torch.equal(learnt, old[:2] if ".lora_A" in name else old[:, :2])


def test_only_layers_with_adapters_are_relieved_and_mistakes_are_named():
    pytest.importorskip("peft")
    from tierform.numerics.adapters import Adapting, attach_lora

    model, _ = small_models()[1]
    chip = emulate(model, "atleus")
    layers = [layer.layer_name for layer in crossbar_layers(chip)]
    ends = {part: [name for name in layers if part in role_of(name)[1]] for part in ("q", "v")}
    assert len(ends["q"]) == len(ends["v"]) == 1 < len(layers)
    assert list(take_peaks(chip, 4, ("q", "v"))) == sorted(ends["q"] + ends["v"], key=layers.index)
    with pytest.raises(TierformError, match="emulated"):
        take_peaks(nn.Sequential(nn.Linear(3, 3)), 2)
    with pytest.raises(TierformError, match="at least 1"):
        Adapting(peak_rank=-1).attach(chip, 0)
    with pytest.raises(TierformError, match="another size"):
        attach_lora(model, rank=4, targets=("all",), peaks={layers[0]: smallest_range(torch.ones(9, 7), 4, 8, 8)})
    with pytest.raises(TierformError, match="dropped"):
        attach_lora(chip, rank=4, targets=("all",), dropout=0.1, peaks=take_peaks(chip, 4))
    assert not any("lora" in name for name, _ in chip.named_modules())
