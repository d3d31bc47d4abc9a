"""Do training steps on many GPUs take as long as published, with the whole split said, and fit as they did?

Korthikanti et al. (2022), table 5, on DGX A100 (eight GPUs a node): seconds of one step.  The runtime's factor on
products was fitted to the two rows of 22 billion; those of 175 billion are held out.  Sends between nodes carry a whole
result for every chip where tokens are not shared; Megatron-LM sends an eighth and gathers it in the node, which is not
modelled.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

import tierform
from tierform import PrecisionPlan, Training
from tierform.workload import Model, model_from_config
from tierform.workload.parallel import Parallelism

FORM = dict.fromkeys(("weights", "activations", "kv_cache", "gradients", "adapters"), "fp16")
PLAN = PrecisionPlan(**FORM, main_gradients="fp32")  # 18 bytes a parameter
# (layers, width, heads, batch, pipeline groups, parts of each, recomputation, seconds).
ROWS = (
    (48, 6144, 64, 4, 1, 1, "full", 1.42),
    (48, 6144, 64, 4, 1, 1, "selective", 1.10),
    (96, 12_288, 96, 64, 8, 3, "full", 18.13),
    (96, 12_288, 96, 64, 8, 3, "selective", 13.75),
)


def gpt(layers: int, width: int, heads: int) -> Model:
    config = {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": 51_200}
    return model_from_config({**config, "n_positions": 2048}, "gpt")


def test_do_steps_of_megatron_take_as_long_as_published() -> None:
    errors = []
    for layers, width, heads, batch, groups, parts, recomputation, published_s in ROWS:
        result = tierform.simulate(
            gpt(layers, width, heads),
            Training(batch=batch, sequence=2048, recomputation=recomputation, precision=PLAN),  # type: ignore[arg-type]
            "a100",
            thermal="none",
            runtime="megatron-2022",
            # Selective recomputation was measured with sequence parallelism.
            parallelism=Parallelism(8, groups, sequence=recomputation == "selective", interleave=parts),
            micro_batches=batch if groups > 1 else 1,
        )
        errors.append(abs(result.latency_s / published_s - 1))
    assert max(errors) < 0.08
    assert median(errors) < 0.05


@pytest.mark.parametrize(
    ("layers", "width", "heads", "batch", "sequence", "accumulation", "recomputation", "mfu"),
    [
        (48, 7168, 56, 24, 2048, 21, "full", 0.553),
        (32, 4096, 32, 48, 2048, 2, "none", 0.6423),
        (40, 5120, 40, 40, 8192, 3, "full", 0.5607),
    ],
)
def test_do_sharded_steps_reach_the_published_utilization(
    layers: int, width: int, heads: int, batch: int, sequence: int, accumulation: int, recomputation: str, mfu: float
) -> None:
    """MPT-30B, 7B and 13B on eight A100 of 80 GB with FSDP (MosaicML, llm-foundry's benchmarking table, 2023).

    They ran, so they must fit.  Their utilization counts 6 operations a parameter and token and whole attention scores.
    """
    config = {"model_type": "gpt2", "n_embd": width, "n_head": heads, "n_layer": layers, "vocab_size": 50_368}
    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = model_from_config({**config, **none, "n_positions": 65_536}, "mpt")
    task = Training(
        batch=batch,
        sequence=sequence,
        gradient_accumulation=accumulation,
        recomputation=recomputation,  # type: ignore[arg-type]
        precision=PrecisionPlan(),
    )
    result = tierform.simulate(
        model, task, "a100", thermal="none", runtime="pytorch-2023-fsdp", parallelism=Parallelism(data=8, zero=3)
    )
    assert result.flops_utilization["model"] == pytest.approx(mfu, rel=0.06)
    assert result.flops_utilization["hardware"] >= result.flops_utilization["model"]


# Table 4 there: milliseconds (forward, backward) of one layer of 22 billion on eight chips.
LAYER_MS = {
    ("none", False): (7.7, 11.9),
    ("none", True): (7.2, 11.8),
    ("full", False): (7.7, 19.5),
    ("selective", False): (7.7, 13.2),
    ("selective", True): (7.2, 13.1),
}


@pytest.mark.parametrize(("recomputation", "sequence"), LAYER_MS)
def test_does_a_layer_take_as_long_as_published(recomputation: str, sequence: bool, tmp_path: Path) -> None:
    """Nothing was fitted to these: the runtime without its factor, which stands for what is beside the layers."""
    runtime = tmp_path / "layer.yaml"
    runtime.write_text("schema: tierform.runtime/1\nname: layer\nfuses_attention: false\nkeeps: [main-gradients]\n")
    result = tierform.simulate(
        gpt(48, 6144, 64),
        Training(batch=4, sequence=2048, recomputation=recomputation, precision=PLAN),
        tierform.load_chip("a100").vary({"components.gpu.memory_capacity": "1 TB"}),
        parallelism=Parallelism(tensor=8, sequence=sequence),
        micro_batches=1,
        runtime=str(runtime),
        thermal="none",
    )
    times = {stage.name: stage.latency_s for stage in result.stages}
    ours = [1e3 * times[name] / 48 for name in ("forward", "backward")]  # with the head's, a hundredth
    assert ours == pytest.approx(LAYER_MS[recomputation, sequence], rel=0.03)
