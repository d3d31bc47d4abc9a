"""Do whole models load at any precision, and is nothing in a store ever run?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tierform.store as store
from tierform.errors import TierformError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tierform.store.to_torch import LazyStateDict, load_model  # noqa: E402


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    gpt2 = transformers.GPT2Config(vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    opt = transformers.OPTConfig(
        vocab_size=61,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        word_embed_proj_dim=32,
    )
    bert = transformers.BertConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    made = {
        "gpt2": transformers.GPT2LMHeadModel(gpt2),
        "opt": transformers.OPTForCausalLM(opt).to(torch.float16),
        "bert": transformers.BertModel(bert).to(torch.bfloat16),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        store.pack_model(folder / name, folder / f"{name}.tfs")
    return {name: folder / name for name in made}


@pytest.mark.parametrize("name", ["gpt2", "opt", "bert"])
def test_a_model_loads_exactly_at_full_precision(models, name: str) -> None:
    original = transformers.AutoModel.from_pretrained(models[name], dtype="auto").eval()
    loaded = load_model(models[name].with_suffix(".tfs"))
    weights = loaded.state_dict()
    for key, tensor in original.state_dict().items():
        match = next(one for full, one in weights.items() if full == key or full.endswith("." + key))
        assert match.dtype == tensor.dtype and match.equal(tensor), key


def test_fewer_bits_are_nearer_the_model_the_more_there_are(models) -> None:
    ids = torch.arange(20).view(1, -1)
    path = models["gpt2"].with_suffix(".tfs")
    with torch.no_grad():
        exact = load_model(path)(ids).logits
        errors = [(load_model(path, bits)(ids).logits - exact).abs().mean().item() for bits in (10, 12, 16, 24)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4 * errors[0]


def test_the_lazy_state_dict(models) -> None:
    with store.open(models["opt"].with_suffix(".tfs")) as opened:
        weights = LazyStateDict(opened, {"*fc1.weight": 7, "*": 16})
        name = next(one for one in weights if one.endswith("fc1.weight"))
        assert opened.count.planes_B == 0  # nothing is read until it is asked for
        assert weights[name].equal(opened.torch(name, 7))
        assert dict(weights).keys() == set(opened.keys())
        with pytest.raises(KeyError):
            weights["nothing"]
        for bits, message in (({"*": 17}, "1 to 16"), ({"nothing*": 4}, "no tensor has a name"), (0, "1 bit")):
            with pytest.raises(TierformError, match=message):
                LazyStateDict(opened, bits)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["os"], "model_type": "gpt2"},
        {"architectures": ["AutoModel"], "model_type": "gpt2"},
        {"architectures": [], "model_type": "gpt2"},
        {"architectures": ["GPT2LMHeadModel"]},
        [],
    ],
)
def test_a_config_that_names_no_model_class_is_refused(tmp_path: Path, config: object) -> None:
    path = tmp_path / "x.tfs"
    store.pack_tensors({}, path, attachments={"config.json": json.dumps(config).encode()})
    with pytest.raises(TierformError):
        load_model(path)


def test_a_store_without_a_config_says_so(small_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.tfs"
    store.pack_tensors({}, path)
    with pytest.raises(TierformError, match="no config"):
        load_model(path)
