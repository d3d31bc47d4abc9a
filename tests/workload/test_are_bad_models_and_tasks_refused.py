"""Does every mistake in a model or a task give one clear message, and nothing else an exception?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.workload import (
    BitFit,
    FineTuning,
    Inference,
    LastLayers,
    MicroBatches,
    expand,
    load_model,
    model_from_config,
)

GOOD = {
    "model_type": "bert",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "intermediate_size": 96,
    "max_position_embeddings": 32,
}
LIBRARY = """name: mine
family: llama
source: llama-2023
config:
  hidden_size: 64
  num_hidden_layers: 2
  num_attention_heads: 4
  intermediate_size: 96
  vocab_size: 50
"""


def message(action: object) -> str:
    with pytest.raises(TierformError) as error:
        action()  # type: ignore[operator]
    return str(error.value)


def test_unknown_name_gets_the_nearest() -> None:
    text = message(lambda: load_model("bert-lage"))
    assert "bert-large" in text and "tierform list models" in text


def test_missing_folder_and_missing_file(tmp_path: Path) -> None:
    assert "no such folder" in message(lambda: load_model("./nowhere/model"))
    assert "no config.json" in message(lambda: load_model(tmp_path))


def test_hub_model_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")

    def offline(name: str, local_files_only: bool) -> None:
        raise OSError("couldn't connect")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    text = message(lambda: load_model("someone/bert-larg"))
    assert "no network, or no such model" in text and "couldn't connect" in text and "bert-large" in text


def test_hub_model_without_transformers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    text = message(lambda: load_model("someone/some-model"))
    assert "transformers" in text and "tierform[train]" in text


def test_unsupported_type_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**GOOD, "model_type": "roberto"}))
    text = message(lambda: load_model(tmp_path))
    assert "roberta" in text and "config.json" in text and "model_type" in text
    assert "model_type" in message(lambda: model_from_config({"hidden_size": 3}))


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"x"', '{"a": 1, "a": 2}', "\x00", "[" * 5000, '{"model_type": NaN}'])
def test_malformed_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    message(lambda: load_model(tmp_path))


def test_all_wrong_values_are_reported_at_once() -> None:
    bad = {
        **GOOD,
        "hidden_size": 50,
        "num_hidden_layers": -3,
        "vocab_size": "many",
        "intermediate_size": 10**18,
        "hidden_act": "gelo",
        "architectures": ["BertForEverything"],
    }
    text = message(lambda: model_from_config(bad))
    for key in (
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
        "intermediate_size",
        "hidden_act",
        "architectures",
    ):
        assert key in text
    assert "did you mean 'gelu'" in text


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"head_dim": 0}, "head_dim"),
        ({"attention_dropout": 7}, "attention_dropout"),
        ({"mlp_bias": "yes"}, "mlp_bias"),
        ({"hidden_size": True}, "hidden_size"),
    ],
)
def test_impossible_sizes(change: dict[str, object], key: str) -> None:
    good = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 50,
    }
    model_from_config(good)
    assert key in message(lambda: model_from_config({**good, **change}))


def test_more_experts_per_token_than_experts() -> None:
    bad = {
        "model_type": "mixtral",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 50,
        "num_local_experts": 2,
        "num_experts_per_tok": 3,
    }
    assert "num_experts_per_tok" in message(lambda: model_from_config(bad))


def test_library_file_with_a_line_for_each_mistake(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(LIBRARY)
    assert load_model(file).hidden_size == 64
    file.write_text(LIBRARY + "  hiden_size: 3\n  rope_theta: 1.0\n")
    text = message(lambda: load_model(file))
    assert "mine.yaml:10" in text and "'hidden_size'" in text
    file.write_text(LIBRARY.replace("num_hidden_layers: 2", "num_hidden_layers: -2"))
    assert "mine.yaml:6" in message(lambda: load_model(file))
    file.write_text(LIBRARY.replace("llama-2023", "llama-2032"))
    assert "llama-2023" in message(lambda: load_model(file))
    file.write_text(LIBRARY + "colour: red\n")
    assert "colour" in message(lambda: load_model(file))


def test_tasks_that_do_not_fit_the_model() -> None:
    bert, gpt2, llama = load_model("bert-base"), load_model("gpt2"), load_model("llama-3.2-1b")
    assert "512" in message(lambda: expand(bert, Inference(sequence=513)))
    assert "1024" in message(lambda: expand(gpt2, Inference(sequence=1000, decode=25)))
    expand(gpt2, Inference(sequence=1000, decode=24))
    assert "decode" in message(lambda: expand(bert, Inference(sequence=8, decode=1)))
    assert "micro_batches" in message(lambda: expand(bert, FineTuning(batch=4), MicroBatches(training=5)))
    assert "nothing would learn" in message(lambda: expand(llama, FineTuning(BitFit())))
    assert "12 layers" in message(lambda: expand(gpt2, FineTuning(LastLayers(13))))
    assert "neither prefill nor decode" in message(lambda: expand(gpt2, Inference(prefill=False)))
    assert "batch" in message(lambda: Inference(batch=-1))


def test_more_tokens_than_rotary_positions_are_costed_and_told() -> None:
    model = load_model("llama-3.1-8b")  # max_position_embeddings of its config.json: 131,072
    told = "llama-3.1-8b was made for 131,072 tokens: costs hold, its answers may not"
    assert told in expand(model, Inference(batch=1, sequence=131_072, decode=1)).notes
    assert told not in expand(model, Inference(batch=1, sequence=131_071, decode=1)).notes


def test_heads_that_a_family_does_not_have() -> None:
    model = load_model("bert-large")
    assert model.with_head("question-answering").head == "question-answering"
    assert "masked-lm" in message(lambda: model.with_head("maskedlm"))
    assert "no such head" in message(lambda: load_model("gpt2").with_head("masked-lm"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "qwen2_moe", "deepseek_v3", "t5", "vit", "hpt", "mixtral"])
@given(st.data())
def test_no_configuration_gives_anything_but_a_model_or_a_message(family: str, data: st.DataObject) -> None:
    keys = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "n_embd",
        "n_head",
        "n_layer",
        "n_positions",
        "num_experts",
        "num_experts_per_tok",
        "architectures",
        "id2label",
        "num_labels",
        "mlp_only_layers",
        "embedding_widths",
        "d_model",
        "image_size",
        "patch_size",
    ]
    config = data.draw(st.dictionaries(st.sampled_from(keys), _json | st.integers(1, 64), max_size=len(keys)))
    try:
        model = model_from_config({**config, "model_type": family})
    except TierformError:
        return
    assert model.parameters > 0


def test_importing_the_room_loads_no_heavy_library() -> None:
    heavy = ("torch", "numpy", "transformers", "numba", "pydantic", "ruamel.yaml")
    code = f"import sys, tierform.workload as w; w.trace; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_expanding_a_library_model_does_not_import_torch() -> None:
    code = (
        "import sys, tierform.workload as w; w.expand(w.load_model('gpt2'), w.FineTuning());"
        "print([m for m in ('torch', 'transformers', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
