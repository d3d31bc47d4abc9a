"""What the keys mean that no schema describes: those of a job file, and of a model's configuration.

A job file takes the fields of the Python interface's records, a model file the keys of a Hugging Face ``config.json``.
A test holds both lists complete and free of what is no longer read.
"""

from __future__ import annotations

from tierform.simulation.job import Job
from tierform.workload.adapter_methods import IA3, AdapterBatch, DoRA, GaLore, LoRAFA, PromptTuning, VeRA
from tierform.workload.decoding import Decoding
from tierform.workload.expert_store import ExpertStore
from tierform.workload.kv_policy import KVPolicy
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.reduced import Reduction
from tierform.workload.task import (
    Adapters,
    BitFit,
    Distillation,
    FineTuning,
    Full,
    Inference,
    LastLayers,
    LoRA,
    QLoRA,
    SequenceGroup,
    Step,
    Training,
)

_KV = "What the cache of keys and values keeps; left out: everything."
_STORE = "Where a mixture's experts wait and how often each is used; left out: all near, used evenly."
_BATCH = "Sequences that are worked on together; operations and activations grow with it."
_PRECISION = "Number formats of the task; left out: the chip's own, or bf16 where it has none."
_RANK = "Rank of the adapters; their parameters, states and operations grow with it."
_TARGETS = (
    "Matrices that get adapters, of q, k, v, o, up, gate and down, of the fused qkv, kv and gate-up, "
    "by their names in Hugging Face's models (`q_proj`, `c_attn`), or `all-linear`."
)
_MANY = "Low-rank adapters that the sequences of the batch use, each its own; none when left out."
_HOST = "The memory of a host that holds what is offloaded: `pcie5-dram`, `pcie4-dram`, `nvme`."
_TUNING = {
    "method": "What learns: `kind` full, lora, qlora, dora, lora-fa, vera, ia3, prompt, galore, adapters, bitfit or "
    "last-layers, with its own keys.",
    "batch": _BATCH,
    "sequence": "Tokens of a sequence; attention grows with its square.",
    "steps": "Optimizer steps; totals, wear and lifetime are for all of them.",
    "optimizer": "Optimizer; it decides how many states wait beside each weight.",
    "gradient_accumulation": "Passes over a batch of sequences before one update.",
    "recomputation": "What backward computes again instead of reading it: nothing, attention (`selective`), or whole "
    "layers (`full`); behind a colon the layers that do: `full:12` the first, `full:0,4-7` those of a list.",
    "precision": _PRECISION,
    "fused_loss": "Whether logits, loss and their gradients are made a piece at a time, never whole in memory.",
    "fused_update": "Whether each layer is updated as soon as its gradients are there, which are then dropped.",
    "offload": "Parts that wait in a host's memory: weights, gradients, optimizer, paged-optimizer, activations.",
    "host": _HOST,
}

RECORDS: dict[type, dict[str, str]] = {
    Job: {
        "model": "A model of the library, a folder with a config.json, a GGUF file, or a Hub id.",
        "task": "What is done with the model: `kind` inference, step, finetuning or training, with its own keys.",
        "chip": "A chip of the library, or a path to a chip file.",
        "parallelism": "How several chips share the task.",
        "runtime": "What the software adds: a runtime of the library, or a path to a runtime file.",
        "fidelity": "Network and memory by formulas, or cycle by cycle.",
        "thermal": "No temperatures, those of the mean power, or temperatures along the task.",
        "overflow": "Weights that do not fit in crossbars: written for every pass, or refused.",
        "mapping": "The best of several mappings that are tried, the first of them (`plain`), or a mapping file.",
        "micro_batches": "Parts that the batch of every phase is cut into, or of each phase by itself; left out: the "
        "best of several numbers.",
        "reduction": "What is taken away from the model: sublayers, layers, heads, width, numbers.",
    },
    Inference: {
        "batch": _BATCH,
        "sequence": "Tokens of a prompt.",
        "decode": "Tokens that are generated after the prompt, for each sequence.",
        "prefill": "Whether the prompt's own pass is done; false: its KV cache is there already.",
        "precision": _PRECISION,
        "offload": "Parts that wait in a host's memory: weights, kv-cache.",
        "host": _HOST,
        "adapters": _MANY,
        "decoding": "How several tokens are made in a step: drafts, and how many of them are accepted.",
        "kv": _KV,
        "experts": _STORE,
    },
    Step: {
        "groups": "The sequences of the pass: a list of groups of equal ones.",
        "logits": "Whether logits are computed of each sequence's last token, or of all new tokens.",
        "precision": _PRECISION,
        "adapters": _MANY,
        "kv": _KV,
        "experts": _STORE,
    },
    SequenceGroup: {
        "sequences": "How many equal sequences there are.",
        "new": "Tokens of each that go through the model in this pass.",
        "past": "Tokens of each that are in its KV cache.",
    },
    FineTuning: _TUNING,
    Training: _TUNING,
    Distillation: {
        **_TUNING,
        "teacher": "The model whose logits the student learns from; its forward pass and weights are added.",
        "teacher_weights": "Format of the teacher's weights; left out: as the task's.",
    },
    Full: {},
    LoRA: {
        "rank": _RANK,
        "targets": _TARGETS,
        "modules_to_save": "Parts that learn whole beside the adapters: embedding, head, normalization.",
    },
    QLoRA: {
        "rank": _RANK,
        "targets": _TARGETS,
        "weights": "Format in which the frozen weights are kept; they are unpacked for each product.",
    },
    DoRA: {"rank": _RANK, "targets": _TARGETS},
    LoRAFA: {"rank": _RANK, "targets": _TARGETS},
    VeRA: {"rank": "Rank of the frozen pair of matrices that all layers share.", "targets": _TARGETS},
    IA3: {"targets": "What learned factors scale: results of matrices, and for `down` its input."},
    PromptTuning: {"tokens": "Learned vectors in front of every sequence."},
    GaLore: {
        "rank": "Rank of the subspace in which the optimizer sees the gradients of matrices.",
        "every": "Steps after which the subspace is found anew by a singular value decomposition.",
        "scale": "By what the step is multiplied on its way back to the weight; 1 takes no operation.",
    },
    AdapterBatch: {
        "rank": _RANK,
        "targets": _TARGETS,
        "used": "Different adapters in a batch.",
        "loaded": "Adapters in memory; left at 0: as many as are used.",
    },
    Adapters: {"bottleneck": "Width of the two bottleneck layers of each block."},
    BitFit: {},
    LastLayers: {"layers": "How many of the last layers learn, with the head."},
    Parallelism: {
        "tensor": "Chips that share every layer; each has a part of the heads and of the widths.",
        "pipeline": "Groups of chips, each with a consecutive part of the layers.",
        "data": "Copies of the model, each with a part of the batch.",
        "sequence": "Whether the chips of `tensor` share tokens, too, where they would repeat each other's work.",
        "zero": "What the copies of `data` shard in training: the optimizer's states (1), gradients, too (2), weights, "
        "too (3, as FSDP).",
        "overlap": "Whether each layer's gradients are reduced over the copies beside the backward pass of others.",
        "expert": "Chips that share the experts of a layer: `tensor` of them, or a divisor of `data`.",
        "imbalance": "Rows of the busiest chip of them over the mean, measured or given.",
        "capacity": "Factor of each expert's padded buffer (Switch Transformers); 0: as many rows as come.",
        "context": "Chips that share the tokens of each sequence (ring attention), in training and prompts.",
        "interleave": "Parts of the layers in each group of `pipeline`; more shorten the idle time and send more.",
    },
    Reduction: {
        "attention": "Layers without attention, counted from 0 (`21-31`, `3,7`); weights and cache are not there.",
        "ffn": "Layers without their feed-forward part.",
        "layers": "Layers that are left out whole.",
        "heads": "Share of the attention heads that stays.",
        "ffn_width": "Share of the feed-forward part's width that stays.",
        "sparse": "Numbers that stay in the matrices of layers: a pattern (`2:4`) or a share (`0.3`); changes bytes.",
        "sparse_format": "How a share is stored: columns beside values, or a bit for each number.",
    },
    Decoding: {
        "draft": "What drafts: a smaller model, fewer bit planes or sublayers of the same model, earlier text, heads "
        "of Medusa, EAGLE's layer, layers of multi-token prediction; or tokens that exit early.",
        "acceptance": "Probability that a drafted token is accepted if those before it were: one, or by position. Of "
        "an early exit the share of tokens that exit.",
        "tokens": "Tokens drafted in a step; 0: as many as is best.",
        "tree": "Branches at each depth of Medusa's or EAGLE's tree; left out: a chain.",
        "model": "The draft model, of the library or a folder; it has the target's vocabulary.",
        "planes": "Bits of each weight that a draft by planes reads.",
        "skip": "Layers without attention in a draft by skipping (`21-31`).",
        "exit_layer": "The first layer that an early exit leaves out.",
        "weights": "Format of a draft model's weights; left out: as the task's.",
    },
    KVPolicy: {
        "window": "Last tokens that the cache keeps; 0: all.",
        "sinks": "First tokens that it keeps beside the window.",
        "heavy": "Tokens with the most attention that it keeps beside the window; each step scores them.",
        "budget": "Most tokens that it keeps, whatever chooses them; 0: all.",
        "block": "Tokens of a page; a sequence keeps whole pages.",
        "whole": "Share of the heads of keys that keep every token, beside others with window and sinks.",
        "offload": "Share of the cache that waits in the memory behind the chip's own and is read for each step.",
    },
    ExpertStore: {
        "cached": "Share of a mixture's experts, the most popular, in the chip's memory; the others are behind it.",
        "routing": "Popularity of each expert, as measured; left out: uniform.",
        "ahead": "Share of the experts missing in the cache that a predictor names early: they cross beside the pass.",
    },
    MicroBatches: {
        "prefill": "Parts of the batch of prompts.",
        "decode": "Parts of the batch of decode steps.",
        "training": "Parts of the batch of forward and backward; saved tensors of all of them wait.",
    },
    PrecisionPlan: {
        "weights": "Format of weights; changes their bytes, crossbars and energy.",
        "activations": "Format of activations, also of those that are saved for backward.",
        "kv_cache": "Format of the KV cache; changes its bytes and traffic.",
        "gradients": "Format of gradients on their way back.",
        "optimizer_states": "Format of the optimizer's states.",
        "master_weights": "Format of the copy of the weights that the update works on; none where empty.",
        "adapters": "Format of the adapters' weights.",
        "attention_weights": "Format of weights in attention; left out: as `weights`.",
        "ffn_weights": "Format of weights in the feed-forward part; left out: as `weights`.",
        "embedding_weights": "Format of the embedding (and of a head tied to it); left out: as `weights`.",
        "head_weights": "Format of the head's matrix; left out: as `weights`.",
        "matmul_inputs": "Inference: a kernel turns the inputs of products in layers into this format (W8A8).",
        "unpacked_weights": "Inference: a kernel of its own unpacks narrower weights into this format.",
        "main_gradients": "Format in which the weights' gradients wait for the update; left out: as `gradients`.",
    },
}

_WIDTH = "Width of the residual stream."
_FFN = "Width of the feed-forward part."
_HEADS = "Attention heads of a layer."
_LAYERS = "Layers; in an encoder-decoder those of the encoder."
_POSITIONS = "Longest sequence that the model takes; with learned positions, rows of their table."
_DROPOUT = "Share of values that dropout clears in training; 0 leaves the operator out."
_ATTENTION_DROPOUT = "Dropout on attention's probabilities in training; 0 leaves the operator out."
_EMBEDDING_DROPOUT = "Dropout behind the embedding in training; 0 leaves the operator out."
_ACTIVATION = "Activation function of the feed-forward part; changes its operations."
_EXPERTS = "Experts of a layer; parameters grow with them."

CONFIG: dict[str, str] = {
    "_remove_final_layer_norm": "Whether the normalization before the head is left out.",
    "activation": _ACTIVATION,
    "activation_function": _ACTIVATION,
    "alibi": "Whether positions are a bias on attention's scores; rotary ones if not.",
    "attention_bias": "Whether the projections of attention have biases.",
    "attention_dropout": _ATTENTION_DROPOUT,
    "attention_out_bias": "Whether the output projection of attention has a bias.",
    "attention_probs_dropout_prob": _ATTENTION_DROPOUT,
    "attn_pdrop": _ATTENTION_DROPOUT,
    "bias": "Whether linear layers have biases.",
    "d_ff": _FFN,
    "d_kv": "Width of a head.",
    "d_model": _WIDTH,
    "decoder_sparse_step": "Every so many layers one has experts.",
    "decoder_widths": "Widths of the layers that make the forecast.",
    "do_layer_norm_before": "Whether normalization comes before attention and feed-forward; the other order is refused "
    "where the model cannot have it.",
    "dropout": _DROPOUT,
    "dropout_rate": _DROPOUT,
    "embd_pdrop": _EMBEDDING_DROPOUT,
    "embedding_dropout_prob": _EMBEDDING_DROPOUT,
    "embedding_widths": "Widths of the layers that embed the input.",
    "enable_bias": "Whether linear layers have biases.",
    "feed_forward_proj": "Activation of the feed-forward part, and whether it has a gate.",
    "ffn_dim": _FFN,
    "ffn_hidden_size": _FFN,
    "first_k_dense_replace": "How many of the first layers have no experts.",
    "head_dim": "Width of a head; left out: hidden size over heads.",
    "hidden_act": _ACTIVATION,
    "hidden_dropout": _DROPOUT,
    "hidden_dropout_prob": _DROPOUT,
    "hidden_size": _WIDTH,
    "image_size": "Edge of the image in pixels; with the patch it gives the tokens.",
    "input_size": "Values of the input at each token.",
    "intermediate_size": _FFN,
    "kv_lora_rank": "Width to which keys and values are compressed; the KV cache holds this.",
    "layer_norm_elementwise_affine": "Whether normalizations have weights; without them the model is refused.",
    "max_position_embeddings": _POSITIONS,
    "mlp_bias": "Whether the linear layers of the feed-forward part have biases.",
    "mlp_only_layers": "Numbers of layers without experts.",
    "moe_intermediate_size": "Width of one expert.",
    "multi_query": "Whether all heads share one head of keys and values.",
    "n_embd": _WIDTH,
    "n_embed": _WIDTH,
    "n_head": _HEADS,
    "n_inner": _FFN,
    "n_layer": _LAYERS,
    "n_positions": _POSITIONS,
    "n_routed_experts": _EXPERTS,
    "n_shared_experts": "Experts that every token uses.",
    "num_attention_heads": _HEADS,
    "num_channels": "Channels of the image.",
    "num_decoder_layers": "Layers of the decoder; left out: as many as the encoder has.",
    "num_experts": _EXPERTS,
    "num_experts_per_tok": "Experts that each token uses; operations grow with them.",
    "num_heads": _HEADS,
    "num_hidden_layers": _LAYERS,
    "num_key_value_heads": "Heads of keys and values; fewer make a smaller KV cache.  Left out: as many as heads.",
    "new_decoder_architecture": "Whether heads share keys in groups and both branches have a norm (Falcon 40B, 180B).",
    "num_kv_heads": "Heads of keys and values; fewer make a smaller KV cache.  Left out: as many as heads.",
    "num_labels": "Classes of a classification head; left out: as many as `id2label` names, or 2.",
    "num_layers": _LAYERS,
    "num_ln_in_parallel_attn": "Normalizations before branches side by side, 1 or 2.",
    "num_local_experts": _EXPERTS,
    "num_tokens": "Tokens of the input, which fix the sequence.",
    "parallel_attn": "Whether attention and feed-forward part are side by side on the same input.",
    "patch_size": "Edge of a patch in pixels.",
    "pooler_output_size": "Width of the pooler; only that of the hidden size is supported.",
    "q_lora_rank": "Width to which queries are compressed; left out: they are not.",
    "qk_nope_head_dim": "Width of the part of a query and key head without positions.",
    "qk_rope_head_dim": "Width of the part with rotary positions; the KV cache holds it once for all heads.",
    "qkv_bias": "Whether the projections of queries, keys and values have biases.",
    "reduction_widths": "Widths of the layers that reduce the embedding.",
    "relative_attention_num_buckets": "Buckets of relative positions; rows of their table.",
    "resid_pdrop": _DROPOUT,
    "shared_expert_intermediate_size": "Width of the expert that every token uses.",
    "skip": "How the input joins the forecast: concatenated, or added.",
    "sliding_window": "Tokens that attention looks back; 0 or left out: all of them.",
    "tie_word_embeddings": "Whether the head shares the weights of the embedding; they then count once.",
    "type_vocab_size": "Kinds of segments; rows of their table.",
    "use_bias": "Whether all linear layers of a layer have biases.",
    "use_qk_norm": "Whether queries and keys are normalized, head by head.",
    "use_qkv_bias": "Whether the projections of queries, keys and values have biases.",
    "use_sliding_window": "Sliding windows in some layers only; true is refused.",
    "v_head_dim": "Width of a head of values.",
    "vocab_size": "Tokens of the vocabulary; rows of the embedding and columns of the head.",
    "word_embed_proj_dim": "Width of the embedding, projected to the hidden size; left out: the same.",
}
