"""The families of models: one file each, with the same shape, one line here.

A family reads the Hugging Face configuration keys of its ``model_type`` and lays out the model's sections.  Other
packages add theirs through the entry-point group ``tierform.families``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tierform.registry import Registry
from tierform.workload.config import Config
from tierform.workload.layers import Pass, Section
from tierform.workload.models import Model


@dataclass(frozen=True)
class Family:
    """How to read a configuration and how its layers look.  `pooled` names the heads that use the pooler."""

    name: str
    read: Callable[[Config, str], Model]
    plan: Callable[[Model, Pass], tuple[Section, ...]]
    heads: tuple[str, ...] = ("none",)
    pooled: Mapping[str, bool] = field(default_factory=dict)


# model_type of config.json -> where the family is
FAMILIES = Registry(
    "model family",
    "tierform.families",
    {
        "bert": "tierform.workload.families.bert:BERT",
        "roberta": "tierform.workload.families.roberta:ROBERTA",
        "gpt2": "tierform.workload.families.gpt2:GPT2",
        "opt": "tierform.workload.families.opt:OPT",
        "bloom": "tierform.workload.families.bloom:BLOOM",
        "llama": "tierform.workload.families.llama:LLAMA",
        "mistral": "tierform.workload.families.mistral:MISTRAL",
        "mixtral": "tierform.workload.families.mixtral:MIXTRAL",
        "qwen2": "tierform.workload.families.qwen:QWEN2",
        "qwen3": "tierform.workload.families.qwen:QWEN3",
        "qwen2_moe": "tierform.workload.families.qwen:QWEN2_MOE",
        "qwen3_moe": "tierform.workload.families.qwen:QWEN3_MOE",
        "phi3": "tierform.workload.families.gated:PHI3",
        "granite": "tierform.workload.families.gated:GRANITE",
        "smollm3": "tierform.workload.families.gated:SMOLLM3",
        "gemma": "tierform.workload.families.gated:GEMMA",
        "gemma2": "tierform.workload.families.current:GEMMA2",
        "gemma3_text": "tierform.workload.families.current:GEMMA3",
        "glm": "tierform.workload.families.current:GLM",
        "glm4": "tierform.workload.families.current:GLM4",
        "olmo": "tierform.workload.families.current:OLMO",
        "olmo2": "tierform.workload.families.current:OLMO2",
        "olmo3": "tierform.workload.families.current:OLMO3",
        "exaone4": "tierform.workload.families.current:EXAONE4",
        "starcoder2": "tierform.workload.families.current:STARCODER2",
        "cohere": "tierform.workload.families.current:COHERE",
        "cohere2": "tierform.workload.families.current:COHERE2",
        "nemotron": "tierform.workload.families.current:NEMOTRON",
        "arcee": "tierform.workload.families.current:ARCEE",
        "stablelm": "tierform.workload.families.current:STABLELM",
        "phi": "tierform.workload.families.current:PHI",
        "gpt_neox": "tierform.workload.families.current:GPT_NEOX",
        "falcon": "tierform.workload.families.parallel:FALCON",
        "gptj": "tierform.workload.families.parallel:GPTJ",
        "ernie4_5": "tierform.workload.families.current:ERNIE",
        "seed_oss": "tierform.workload.families.current:SEED_OSS",
        "hunyuan_v1_dense": "tierform.workload.families.current:HUNYUAN",
        "olmoe": "tierform.workload.families.current:OLMOE",
        "granitemoe": "tierform.workload.families.current:GRANITE_MOE",
        "glm4_moe": "tierform.workload.families.current:GLM4_MOE",
        "deepseek_v2": "tierform.workload.families.deepseek:DEEPSEEK_V2",
        "deepseek_v3": "tierform.workload.families.deepseek:DEEPSEEK_V3",
        "t5": "tierform.workload.families.t5:T5",
        "vit": "tierform.workload.families.vit:VIT",
        "hpt": "tierform.workload.families.hpt:HPT",
    },
)


def family_of(config: Config) -> Family:
    """The family of a configuration's ``model_type``; an unsupported one is refused with the nearest."""
    name = config.values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        known = FAMILIES.names()
        what = "this model_type is not supported" if name is not None else "the key is missing"
        fix = (
            f"Read here: {', '.join(known)}. A folder with any other model that `transformers` knows is traced where "
            "that is installed (pip install 'tierform[train]'), a module of your own by tierform.workload.trace."
        )
        config.fail(what, "model_type", name, known, fix)
    family: Family = FAMILIES.get(name)
    return family
