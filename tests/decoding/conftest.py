"""A small random Llama and its kin, made here: no download."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def make(seed: int, layers: int = 3, vocabulary: int = 24):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() > 1:
                one.mul_(6.0)  # distributions that are not flat
    return model


@pytest.fixture(scope="session")
def target():
    return make(1)


@pytest.fixture(scope="session")
def other():
    return make(2, layers=1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, target):
    """The target as a model folder with a tokenizer of single letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    place = tmp_path_factory.mktemp("letters")
    target.save_pretrained(place)
    letters = {chr(97 + number): number for number in range(23)} | {"?": 23}
    words = Tokenizer(models.WordLevel(letters, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(place)
    return place
