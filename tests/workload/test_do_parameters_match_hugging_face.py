"""Does every model have exactly the parameters of the Hugging Face module of the same configuration?"""

from __future__ import annotations

import pytest
import reference_modules as reference
import torch
import transformers

from tierform import library
from tierform.files import read_yaml
from tierform.workload import FineTuning, expand, load_model

NAMES = [name for name in library.names("models") if not name.startswith("hpt-")]

# Published totals of the four HpT encoders: all parameters; with LoRA of rank 8 the trained ones, embeddings and head
# included.
HPT = {
    "hpt-swe": (45_424_451, 7_792_451),
    "hpt-weather": (40_083_357, 2_451_357),
    "hpt-covid": (40_027_250, 2_395_250),
    "hpt-wind": (27_383_545, 2_346_745),
}


@pytest.mark.parametrize("case", reference.CASES)
def test_small_module_of_each_architecture(case: str) -> None:
    module, model = reference.build(case)
    assert model.parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_library_model_at_its_real_size(name: str) -> None:
    entry = read_yaml(library.find("models", name)).content
    sizes = dict(entry["config"])
    module_class = sizes.pop("architectures")[0]
    config = transformers.AutoConfig.for_model(entry["family"], **sizes)
    with torch.device("meta"):
        module = getattr(transformers, module_class)(config)
    assert load_model(name).parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", HPT)
def test_spatio_temporal_encoder_has_the_published_totals(name: str) -> None:
    from tierform.workload import LoRA

    model = load_model(name)
    assert model.parameters == HPT[name][0]
    method = LoRA(rank=8, targets=("q", "v"), modules_to_save=("embedding", "head"))
    assert expand(model, FineTuning(method)).trainable_parameters == HPT[name][1]
    assert expand(model, FineTuning(LoRA(rank=8))).trainable_parameters == 196_608


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("mixtral-8x7b", 46.7e9, 12.9e9), ("deepseek-v3", 671e9, 37e9), ("qwen3-30b-a3b", 30.5e9, 3.3e9)],
)
def test_active_parameters_are_those_the_makers_state(name: str, total: float, active: float) -> None:
    model = load_model(name)
    assert model.parameters == pytest.approx(total, rel=0.005)
    assert model.active_parameters == pytest.approx(active, rel=0.02)


def test_every_library_model_states_a_source_and_expands() -> None:
    for name in library.names("models"):
        model = load_model(name)
        assert library.citation(model.source).text
        assert model.name == name
        assert expand(model, FineTuning()).trainable_parameters == model.parameters
