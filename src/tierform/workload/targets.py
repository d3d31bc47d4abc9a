"""The matrices of a layer that can have an adapter, by the house's names and by those of Hugging Face's models.

A fused matrix (GPT-2's ``c_attn``, BLOOM's ``query_key_value``, Phi-3's ``gate_up_proj``) is several products of one
input.  An adapter beside it has one A and a B as high as all of them: `qkv`, `kv` and `gate-up` here, r (d + 3 d)
parameters for the first where adapters beside q, k and v have 3 r (d + d).
"""

from __future__ import annotations

from collections.abc import Sequence

from tierform.errors import Problem, TierformError, nearest

PARTS = ("q", "k", "v", "o", "up", "gate", "down")
FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate-up": ("gate", "up")}
TARGETS = (*PARTS, *FUSED)
ALL_LINEAR = "all-linear"

# Names of modules in Hugging Face's models, and the matrices that they are.
HUGGING_FACE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("q_proj", "query", "q_lin", "q_linear", "q_b_proj", "wq"), ("q",)),
    **dict.fromkeys(("k_proj", "key", "k_lin", "k_linear", "wk"), ("k",)),
    **dict.fromkeys(("v_proj", "value", "v_lin", "v_linear", "wv"), ("v",)),
    **dict.fromkeys(("o_proj", "out_proj", "out_lin", "attention.output.dense"), ("o",)),
    **dict.fromkeys(("attn.c_proj", "self_attention.dense", "attention.dense"), ("o",)),
    **dict.fromkeys(("gate_proj", "wi_0", "w1"), ("gate",)),
    **dict.fromkeys(("up_proj", "wi_1", "wi", "w3", "fc1", "lin1", "c_fc", "dense_h_to_4h"), ("up",)),
    **dict.fromkeys(("down_proj", "wo", "w2", "fc2", "lin2", "dense_4h_to_h", "mlp.c_proj"), ("down",)),
    "intermediate.dense": ("up",),
    "c_proj": ("o", "down"),
    "output.dense": ("o", "down"),
    **dict.fromkeys(("c_attn", "query_key_value", "qkv_proj", "qkv"), ("qkv",)),
    "kv_b_proj": ("kv",),
    "gate_up_proj": ("gate-up",),
    ALL_LINEAR: PARTS,
}
# What one name is in some models and another in others.
_AMBIGUOUS = {
    "dense": "the end of a BERT layer's three output matrices, and of BLOOM's one: "
    "write attention.output.dense, intermediate.dense or output.dense, or o, up, down",
}


def house_targets(names: Sequence[str]) -> tuple[str, ...]:
    """The targets that `names` are, each once; TierformError with every name that is none."""
    problems, found = [], []
    if isinstance(names, str):
        names = [part.strip() for part in names.split(",") if part.strip()]
    for name in names:
        if name in TARGETS:
            found.append(name)
        elif known := HUGGING_FACE.get(str(name)):
            found += known
        elif name in _AMBIGUOUS:
            problems.append(Problem("stands for several matrices", key="targets", value=name, fix=_AMBIGUOUS[name]))
        else:
            near = nearest(str(name), (*TARGETS, *HUGGING_FACE))
            fix = f"Targets: {', '.join(TARGETS)}, {ALL_LINEAR}, or a module's name in Hugging Face's model."
            problems.append(
                Problem("not a matrix that can be a target", key="targets", value=name, nearest=near, fix=fix)
            )
    if not names:
        fix = f"Targets: {', '.join(TARGETS)}, {ALL_LINEAR}."
        problems.append(Problem("at least one target is needed", key="targets", fix=fix))
    if problems:
        raise TierformError(problems)
    return tuple(dict.fromkeys(found))
