"""Random jobs for the laws of the ledger: small models, tasks, splits, chips of the library with values changed.

`TIERFORM_LAWS` (a factor, 1 by default) multiplies the cases of every law; `make laws` sets it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from small_models import METHODS, has_biases, recomputations, small

import tierform
from tierform import BitFit, FineTuning, Inference, library
from tierform.chip.description import Chip
from tierform.simulation import Result
from tierform.workload import Model
from tierform.workload.parallel import Parallelism

MORE = int(os.environ.get("TIERFORM_LAWS", "1"))
GPUS = ("a100", "h100", "toy-gpu")
STACKS = (
    "atleus",
    "atleus-2.5d",
    "tpu-3d",
    "isaac",
    "pipelayer",
    "retransformer",
    "x-former",
    "haima",
    "hetrax",
    "hpt",
)
GOLDEN = Path(__file__).parents[1] / "golden"
ALONE = Parallelism()
Task = Inference | FineTuning


def law(cases: int) -> Any:
    """Settings of a law that draws so many cases; without a random seed, so that every run draws the same ones."""
    return settings(max_examples=cases * MORE, deadline=None, derandomize=MORE == 1, database=None)


decoder_families = st.sampled_from(["gpt2", "llama", "mistral", "qwen3", "mixtral", "deepseek_v3"])
dense_families = st.sampled_from(["gpt2", "llama", "bert", "t5"])
families = st.sampled_from(["gpt2", "llama", "bert", "mistral", "qwen3", "mixtral", "qwen2_moe", "deepseek_v3", "t5"])
chips = st.sampled_from([*GPUS, *STACKS])


@st.composite
def models(draw: st.DrawFn, of: Any = families) -> Model:
    """A small model."""
    return small(draw(of))


@st.composite
def tasks(draw: st.DrawFn, model: Model, *, batches: tuple[int, ...] = (1, 2, 4)) -> Task:
    """Inference or fine-tuning of a small model."""
    batch, sequence = draw(st.sampled_from(batches)), draw(st.sampled_from([8, 16, 24]))
    if draw(st.booleans()):
        decode = draw(st.sampled_from([0, 3])) if model.kind in ("decoder", "encoder-decoder") else 0
        return Inference(batch=batch, sequence=sequence, decode=decode)
    allowed = [m for m in METHODS if not isinstance(m, BitFit) or has_biases(model.family)]
    return FineTuning(
        draw(st.sampled_from(allowed)),
        batch=batch,
        sequence=sequence,
        recomputation=draw(recomputations),
        gradient_accumulation=draw(st.sampled_from([1, 2])),
    )


def chip_path(name: str) -> Path:
    """The file of a chip."""
    return GOLDEN / f"{name}.yaml" if (GOLDEN / f"{name}.yaml").exists() else library.find("chips", name)


def chip_content(name: str) -> dict[str, Any]:
    """A chip file's content with its component files by absolute path, to be changed and loaded."""
    content: dict[str, Any] = YAML(typ="safe").load(chip_path(name))
    for part in content["components"].values():
        if part["file"].startswith("./"):
            part["file"] = str(chip_path(name).parent / part["file"][2:])
    return content


def part_content(content: dict[str, Any], name: str) -> dict[str, Any]:
    """The content of the file of one of a chip's components."""
    file = content["components"][name]["file"]
    path = Path(file) if file.endswith(".yaml") else library.find("components", file)
    found: dict[str, Any] = YAML(typ="safe").load(path)
    return {**found, **content["components"][name].get("set", {})}


def load(content: dict[str, Any], folder: Path) -> Chip:
    """The chip of such a content."""
    path = folder / f"{content['name']}.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML, and keeps the order of keys
    return tierform.load_chip(path)


def run(model: Model, task: Task, chip: Chip | str, split: Parallelism = ALONE, **given: Any) -> Result:
    """The result at one temperature."""
    where = chip if isinstance(chip, Chip) else chip_path(chip)
    return tierform.simulate(model, task, where, parallelism=split, **{"thermal": "none", **given})
