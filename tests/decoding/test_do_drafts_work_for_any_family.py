"""Do drafts by planes, by skipping and by lookup work for decoders of many families, and change nothing in the text?

Small random models of transformers' own configurations.  Learned and rotated positions, ALiBi, fused and separate
projections, attention beside the FFN, an attention that adds the residual stream itself (BLOOM), latent attention and
experts are among them.
"""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tierform.compression.sites import anatomy, skip_sublayers  # noqa: E402
from tierform.decoding.drafts import at_planes, read_draft, without_attention  # noqa: E402
from tierform.decoding.loop import generate  # noqa: E402
from tierform.errors import TierformError  # noqa: E402

SIZES = {"vocab_size": 24, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GROUPED = {**SIZES, **ENDS, "num_key_value_heads": 2, "intermediate_size": 48}
OLD = {"vocab_size": 24, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, **ENDS}
LATENT = {
    **GROUPED,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
}
# Family -> class of its configuration, keys, matrices of all layers.
FAMILIES = {
    "gpt2": ("GPT2Config", OLD, 12),
    "gptj": ("GPTJConfig", {**OLD, "rotary_dim": 4}, 18),
    "opt": (
        "OPTConfig",
        {**SIZES, **ENDS, "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
        18,
    ),
    "gpt-neox": ("GPTNeoXConfig", {**SIZES, **ENDS, "intermediate_size": 48}, 12),
    "bloom": ("BloomConfig", {"vocab_size": 24, "hidden_size": 32, "n_layer": 3, "n_head": 4, **ENDS}, 12),
    "falcon": ("FalconConfig", {**SIZES, **ENDS}, 12),
    "phi": ("PhiConfig", {**SIZES, **ENDS, "intermediate_size": 48}, 18),
    "mistral": ("MistralConfig", GROUPED, 21),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 8}, 21),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 8}, 21),
    "mixtral": ("MixtralConfig", {**GROUPED, "num_local_experts": 4}, 12),
    "deepseek-v3": ("DeepseekV3Config", LATENT, 24),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A model's name and itself."""
    kind, keys, _ = FAMILIES[request.param]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**keys)).float().eval()
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() > 1:
                one.mul_(4.0)  # distributions that are not flat
    return request.param, model


def test_are_all_matrices_of_the_layers_found(family):
    name, model = family
    parts = anatomy(model)
    assert len(parts.sites) == FAMILIES[name][2]
    assert {site.sublayer for site in parts.sites} >= {"attention"} and not [
        s for s in parts.sites if s.sublayer == "other"
    ]
    held = sum(one.numel() for one in parts.layers.parameters() if one.dim() > 1)
    stacked = sum(one.numel() for one in parts.layers.parameters() if one.dim() == 3)
    routers = sum(
        one.numel() for path, one in parts.layers.named_parameters() if one.dim() == 2 and path.endswith("gate.weight")
    )
    assert sum(site.matrix.numel() for site in parts.sites) + stacked + routers == held


def test_is_a_skipped_attention_one_that_adds_nothing(family):
    _, model = family
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    silent = copy.deepcopy(model)
    skip_sublayers(silent, [f"{anatomy(model).prefix}.1.attention"])
    with torch.inference_mode():
        whole, quiet, made = (one(input_ids=ids).logits for one in (model, silent, without_attention(model, "1")))
    assert torch.allclose(quiet, made, atol=1e-5) and not torch.allclose(quiet, whole, atol=1e-2)


def test_do_planes_change_every_matrix(family):
    _, model = family
    made = anatomy(at_planes(model, "9")).layers
    for (path, before), after in zip(anatomy(model).layers.named_parameters(), made.parameters(), strict=True):
        if before.dim() > 1 and not path.endswith("gate.weight"):
            error = float((after - before).detach().abs().max() / before.detach().abs().max())
            assert 0 < error <= 1 / 16, path  # three bits of the mantissa, filled with the middle: 1/16 of a value


@pytest.mark.parametrize("kind", ["planes:7", "skip:1-2", "lookup"])
def test_is_greedy_text_equal_for_this_family(family, kind):
    _, model = family
    draft, accepted = read_draft(kind, model, ""), 0
    for prompt in ([3, 1, 4, 1, 5, 3, 1], [2, 7, 2, 7, 2, 7]):
        plain = generate(model, prompt, 10)
        fast = generate(model, prompt, 10, draft=draft, count=3)
        assert fast.tokens == plain.tokens or min(plain.margins) < 1e-4
        accepted += sum(fast.accepted)
    assert accepted > 0 or kind.startswith("skip")


def test_is_a_layer_whose_attention_is_no_module_of_its_own_refused():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.fc1 = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    holder = torch.nn.Module()
    holder.layers = torch.nn.ModuleList([Layer(), Layer()])
    with pytest.raises(TierformError, match="attention of its own"):
        without_attention(holder, "1")
