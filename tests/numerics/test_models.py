"""Does a whole model run on a chip: every static layer replaced or none, on the mapping's tiles, with adapters?"""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tierform.chip.component import WeightHolder  # noqa: E402
from tierform.chip.description import load_chip  # noqa: E402
from tierform.errors import TierformError  # noqa: E402
from tierform.numerics import describe, emulate, new_chip_instance, set_fidelity  # noqa: E402
from tierform.numerics.layer import CrossbarLinear  # noqa: E402
from tierform.numerics.placement import role_of, static_linears  # noqa: E402
from tierform.workload import Inference  # noqa: E402
from tierform.workload.models import model_from_config  # noqa: E402


def bert(**changes):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        **changes,
    }
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=3)).eval()


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
    )
    return transformers.LlamaForCausalLM(config).eval()


IDS = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("make", "count"), [(bert, 12), (gpt2, 8), (llama, 14)])
def test_every_static_layer_and_nothing_else(make, count):
    model = make()
    chip_model = emulate(model, "atleus")
    layers = [part for part in chip_model.modules() if isinstance(part, CrossbarLinear)]
    assert len(layers) == count
    assert not any(isinstance(part, CrossbarLinear) for part in model.modules()), "the original was changed"
    with torch.no_grad():
        exact, found = model(IDS).logits, chip_model(IDS).logits
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.02


def test_roles_of_common_names():
    assert role_of("bert.encoder.layer.3.attention.output.dense") == ("attention", frozenset({"o"}), 3)
    assert role_of("transformer.h.11.attn.c_attn") == ("attention", frozenset({"q", "k", "v"}), 11)
    assert role_of("transformer.h.0.mlp.c_proj")[0:2] == ("ffn", frozenset({"down"}))
    assert role_of("model.layers.1.mlp.gate_proj")[0:2] == ("ffn", frozenset({"gate"}))
    assert role_of("lm_head")[0] == role_of("classifier")[0] == role_of("bert.pooler.dense")[0] == "head"


def test_fused_attention_modules_are_left_alone():
    encoder = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    assert [item.name for item in static_linears(encoder)] == ["linear1", "linear2"]


def test_a_plan_gives_each_module_its_bits_and_the_cache_its_own():
    rows = describe(emulate(gpt2(), "atleus", bits="M8F4"))
    assert {row["weight_bits"] for row in rows if ".attn." in row["layer"]} == {8}
    assert {row["weight_bits"] for row in rows if ".mlp." in row["layer"]} == {4}
    plain, cached = emulate(gpt2(), "atleus"), emulate(gpt2(), "atleus", bits="W8A8KV2")
    with torch.no_grad():
        assert not torch.equal(plain(IDS).logits, cached(IDS).logits)


def test_nothing_is_half_converted():
    model = bert()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(TierformError, match=r"layer\.1\.output\.dense"):
        emulate(model, "atleus", inplace=True)
    assert not any(isinstance(part, CrossbarLinear) for part in model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adc_range": 0.0}, "range"),
        ({"noise": "rram-wann-2022"}, "rram-wan-2022"),
        ({"modules": ["qury"]}, "query"),
        ({"fidelity": "bit"}, "fidelity"),
        ({"temperature_K": -3.0}, "temperature"),
        ({"adc_bit": 6}, "adc_bits"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(TierformError, match=message):
        emulate(bert(), "atleus", **options)


def test_models_and_chips_that_do_not_fit():
    with pytest.raises(TierformError, match="no linear layer"):
        emulate(torch.nn.Sequential(torch.nn.Embedding(3, 3)), "atleus")
    with pytest.raises(TierformError, match="no crossbars"):
        emulate(bert(), "a100")
    chip = load_chip("atleus")
    name = next(name for name, part in chip.components.items() if isinstance(part, WeightHolder))

    import dataclasses

    part = chip.components[name]
    one = part.parameters.model_copy(update={"crossbars": 1})
    five = dataclasses.replace(part, units=5, parameters=one)
    small = dataclasses.replace(chip, components={**chip.components, name: five})
    with pytest.raises(TierformError, match="5"):
        emulate(torch.nn.Sequential(*(torch.nn.Linear(128, 32) for _ in range(6))), small)


def test_heat_of_a_simulation_reaches_the_cells():
    from tierform import simulation

    model = bert(hidden_size=64)
    result = simulation.simulate(model_from_config(model.config.to_dict()), Inference(batch=1, sequence=32), "atleus")
    if result.thermal is None:
        pytest.skip("no thermal model")
    hot = emulate(model, "atleus", noise="temperature-metallic", temperature_K=result, encoding="differential")
    cold = emulate(model, "atleus", noise="temperature-metallic", temperature_K=300.0, encoding="differential")
    ratio = [float(a.effective.norm() / b.effective.norm()) for a, b in zip(_layers(hot), _layers(cold), strict=True)]
    assert all(0.5 < value < 1 for value in ratio), ratio


def _layers(model):
    return [part for part in model.modules() if isinstance(part, CrossbarLinear)]


def test_an_instance_is_one_draw_and_fidelities_agree_without_adc_loss():
    chip_model = emulate(bert(initializer_range=0.1), "atleus", noise="programming-2pct", seed=3, adc_bits=0)

    def distance():
        return float((chip_model(IDS).logits - first).norm() / first.norm())

    with torch.no_grad():
        first = chip_model(IDS).logits
        assert torch.equal(first, chip_model(IDS).logits)
        set_fidelity(chip_model, "weights")
        assert distance() < 0.02
        new_chip_instance(chip_model, 4)
        assert distance() > 0.05
        new_chip_instance(chip_model, 3)
        assert distance() < 0.02


def test_adapters_learn_beside_frozen_noisy_cells():
    pytest.importorskip("peft")
    from tierform.numerics.adapters import attach_lora, train_adapters
    from tierform.numerics.tasks import TaskSet, evaluate

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (64, 8), generator=generator)
    labels = (ids[:, 0] > 25).long()
    task = TaskSet(
        "which", "rows", {"input_ids": ids[:32], "labels": labels[:32]}, {"input_ids": ids[32:], "labels": labels[32:]}
    )
    chip_model = emulate(bert(initializer_range=0.2), "atleus", noise="programming-2pct", seed=1)
    cells = [layer.weight.detach().clone() for layer in _layers(chip_model)]
    model = attach_lora(chip_model, rank=4, targets=("all",), seed=0)
    assert all(not layer.weight.requires_grad for layer in _layers(model))
    losses = train_adapters(model, task.batches(32, 0), steps=40, learning_rate=5e-3, resample_every=10, seed=0)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert all(torch.equal(a, b.weight) for a, b in zip(cells, _layers(model), strict=True))
    assert all(layer.fidelity == "bits" for layer in _layers(model))
    new_chip_instance(model, 2)
    assert evaluate(model, task).total == 32
    with pytest.raises(TierformError, match="parts"):
        attach_lora(bert(), targets=("qq",))


def test_local_tables_texts_choices_and_answers_become_tasks(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from tierform.numerics.tables import load_model_and_task
    from tierform.numerics.tasks import evaluate

    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    folder = tmp_path / "model"
    bert().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    table = tmp_path / "pairs.jsonl"
    table.write_text("\n".join(json.dumps({"sentence1": "a b", "sentence2": "c", "label": i % 2}) for i in range(20)))
    model, task = load_model_and_task(str(folder), str(table), context=16)
    assert evaluate(model, task).total == 2
    swag = tmp_path / "swag.jsonl"
    row = {"sent1": "a b", "sent2": "c", **{f"ending{i}": "d e" for i in range(4)}, "label": 2}
    swag.write_text("\n".join(json.dumps(row) for _ in range(10)))
    model, task = load_model_and_task(str(folder), str(swag), context=16)
    assert evaluate(model, task).total == 1
    squad = tmp_path / "squad.jsonl"
    row = {"question": "a", "context": "b c d e", "answers": {"text": ["c d"], "answer_start": [2]}}
    squad.write_text("\n".join(json.dumps(row) for _ in range(10)))
    model, task = load_model_and_task(str(folder), str(squad), context=16)
    assert evaluate(model, task).total == 1
    gpt2().save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    text = tmp_path / "words.txt"
    text.write_text("a b c d e f g h " * 60)
    model, task = load_model_and_task(str(tmp_path / "decoder"), str(text), context=16)
    assert evaluate(model, task).total == 45
    with pytest.raises(TierformError, match="columns"):
        table.write_text(json.dumps({"one": 1}))
        load_model_and_task(str(folder), str(table))


def test_the_command_prints_the_table_and_writes_json(tmp_path, capsys):
    pytest.importorskip("sklearn")
    from tierform.cli.main import main

    out = tmp_path / "out.json"
    with pytest.raises(SystemExit) as end:
        main(
            [
                "accuracy",
                "small",
                "--data",
                "digits",
                "--pretrain-steps",
                "3",
                "--steps",
                "2",
                "--seeds",
                "1",
                "--instances",
                "1",
                "--limit",
                "20",
                "--json",
                str(out),
            ]
        )
    assert end.value.code == 0
    table = json.loads(out.read_text())
    assert [line["name"] for line in table["lines"]] == [
        "float",
        "quantized",
        "noisy",
        "adapted, ideal device",
        "the same in float",
        "adapted without noise, noisy device",
        "adapted with noise, noisy device",
    ]
    assert "points lost" in capsys.readouterr().out
    for arguments, text in (
        (["small", "--data", "digts"], "digits"),
        (["small", "--data", "digits", "--bits", "eight"], "bit plan"),
        (["small", "--data", "digits", "--noise", "read-2pct"], "read-1pct"),
        (["small", "--data", "digits", "--chip", "a100"], "crossbars"),
        (["small", "--data", "digits", "--training-fidelity", "bit"], "--training-fidelity"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["accuracy", *arguments])
        assert end.value.code == 2
        assert text in capsys.readouterr().err


def test_importing_the_room_does_not_import_torch():
    code = "import sys, tierform.numerics, tierform.cli.accuracy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_norms_biases_and_the_head_train_beside_the_adapters_where_asked():
    pytest.importorskip("peft")
    from tierform.numerics.adapters import attach_lora

    for norms in (False, True):
        chip_model = emulate(bert(), "atleus", noise="programming-2pct")
        trained = {
            name for name, p in attach_lora(chip_model, rank=2, train_norms=norms).named_parameters() if p.requires_grad
        }
        assert any("LayerNorm.weight" in name for name in trained) is norms
        assert any("intermediate.dense.bias" in name for name in trained) is norms
        assert any("pooler" in name for name in trained)
        assert not any("base_layer.weight" in name for name in trained)
