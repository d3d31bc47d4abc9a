"""Does a language model generate the same with its keys and values in compressed planes?"""

from __future__ import annotations

import pytest

from tierform.errors import TierformError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("zstandard")


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small only lose by threads that wait for each other."""
    from tierform.store.small_model import single_thread

    with single_thread():
        yield


def make(kind: str, dtype: torch.dtype):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=97, n_positions=256, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
        )
        model = transformers.LlamaForCausalLM(config)
    model.generation_config.pad_token_id = 0
    return model.to(dtype).eval()


def generate(model, cache, **settings):
    torch.manual_seed(1)
    prompt = torch.randint(3, 97, (2, 40))
    mask = torch.ones_like(prompt)
    mask[0, :7] = 0  # one sequence is shorter: padded on the left
    with torch.no_grad():
        return model.generate(
            prompt,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=24,
            min_new_tokens=24,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("settings", [{"do_sample": False}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generation_is_the_same_as_with_ordinary_tensors(kind: str, dtype, settings) -> None:
    from tierform.store.generation_cache import PlaneCache

    model, cache = make(kind, dtype), PlaneCache(group_tokens=32)
    plain = generate(model, transformers.DynamicCache(), **settings)
    ours = generate(model, cache, **settings)
    assert torch.equal(plain.sequences, ours.sequences)
    for a, b in zip(plain.scores, ours.scores, strict=True):
        assert torch.equal(a, b)  # to the last bit, so the tensors were the same
    assert cache.get_seq_length() == 63 and len(cache) == 2
    beams = settings.get("num_beams", 1)
    size = cache.layers[0]._rows[0][0].channels * {2: 2, 4: 4}[torch.finfo(dtype).bits // 8]
    assert cache.plain_B == 2 * 2 * 63 * size * 2 * beams  # layers, keys and values, tokens, sequences
    assert 0 < cache.stored_B < cache.plain_B


def test_assisted_generation_crops(kind: str = "llama") -> None:
    from tierform.store.generation_cache import PlaneCache

    model, small = make(kind, torch.float32), make("llama", torch.float32)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # so that some of its guesses are refused
    prompt = torch.randint(3, 97, (1, 30))
    tokens = []
    for cache in (transformers.DynamicCache(), PlaneCache(group_tokens=32)):
        torch.manual_seed(0)
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=cache,
            assistant_model=small,
            do_sample=False,
            max_new_tokens=40,
            min_new_tokens=40,
        )
        tokens.append(out)
    assert torch.equal(*tokens)


def test_batches_change_and_crops_cut_groups() -> None:
    from tierform.store.generation_cache import PlaneCache

    torch.manual_seed(0)
    cache, plain = PlaneCache(group_tokens=16), transformers.DynamicCache()
    both = (cache, plain)

    def step(tokens: int, batch: int) -> None:
        states = [torch.randn(batch, 3, tokens, 8).bfloat16() for _ in range(2)]
        got = [one.update(*states, 0) for one in both]
        for ours, theirs in zip(*got, strict=True):
            assert ours.shape == theirs.shape and torch.equal(ours, theirs)

    step(37, 2)
    for one in both:
        one.batch_repeat_interleave(2)
    step(1, 4)
    for one in both:
        one.reorder_cache(torch.tensor([3, 0, 0, 2]))
    step(5, 4)
    for left in (43 - 2, 32, 17, 16, 3):
        for one in both:
            one.crop(left - one.get_seq_length())
        assert cache.get_seq_length() == plain.get_seq_length() == left
        step(1, 4)
        step(2, 4)
    for one in both:
        one.batch_select_indices(torch.tensor([False, True, True, False]))
    step(20, 2)
    assert cache.get_mask_sizes(3, 0) == plain.get_mask_sizes(3, 0)
    shared = cache.layers[0]
    shared.batch_repeat_interleave(2)
    assert shared._rows[0][0]._groups[0] is shared._rows[1][0]._groups[0]  # not copied
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.stored_B == 0
    plain.reset()
    step(4, 1)


def test_fewer_bits_are_near_and_read_less() -> None:
    from tierform.store.generation_cache import PlaneCache

    model = make("llama", torch.bfloat16)
    ids = torch.randint(3, 97, (1, 200))
    seen, read = [], []
    for bits in (None, 12, 9):
        cache = PlaneCache(key_bits=bits, value_bits=bits, group_tokens=32)
        with torch.no_grad():
            model(ids[:, :160], past_key_values=cache)
            seen.append(model(ids[:, 160:], past_key_values=cache).logits.float())
        read.append(sum(layer.bytes_read for layer in cache.layers))
    near, far = ((one - seen[0]).abs().mean() for one in seen[1:])
    assert 0 < near < 0.5 * far < 0.5 * seen[0].abs().mean()
    assert read[0] > read[1] > read[2]


def test_what_cannot_be_kept_is_refused() -> None:
    from tierform.store.generation_cache import PlaneCache

    states = torch.randn(1, 2, 3, 4)
    for cache, given, message in (
        (PlaneCache(), states.double(), "bf16, fp16 or fp32"),
        (PlaneCache(key_bits=8), states.bfloat16(), "9 to 16 bits"),
        (PlaneCache(value_bits=33), states, "9 to 32 bits"),
        (PlaneCache(group_tokens=24), states.half(), "multiple of 16"),
    ):
        with pytest.raises(TierformError, match=message):
            cache.update(given, given, 0)
    cache = PlaneCache()
    cache.update(states, states, 0)
    with pytest.raises(TierformError, match="holds 1 sequences"):
        cache.update(states.repeat(2, 1, 1, 1), states.repeat(2, 1, 1, 1), 0)
    with pytest.raises(TierformError, match="negative"):
        cache.crop(2)
    with pytest.raises(ValueError, match="LinearAttention"):
        cache.update_conv_state(states, 0)
