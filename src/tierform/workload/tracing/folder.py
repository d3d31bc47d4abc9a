"""Traces the model of a folder: ``config.json`` names a class of ``transformers``, which is made without weights."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tierform.errors import MissingDependency, Problem, TierformError, fail
from tierform.workload.graph import Workload
from tierform.workload.models import Model
from tierform.workload.parallel import ALONE, Parallelism
from tierform.workload.task import FineTuning, Full, Inference, Task
from tierform.workload.tracing.module import trace


def load_traced(folder: str | Path, task: Task, *, parallelism: Parallelism = ALONE) -> Workload:
    """The workload of `task` on the model of a folder with a Hugging Face ``config.json``, whatever its family.

    The class that ``architectures`` names is made on the meta device and traced.  The task is one forward pass
    (Inference with decode 0) or full training.  Raises TierformError for anything else, for a class that
    `transformers` does not have, and for inputs other than token ids and pixels: make such a module yourself and give
    it to :func:`trace`.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        fail("the folder has no config.json", file=str(path), fix="Give a folder as `save_pretrained` writes it.")
    _check(task)
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingDependency(package, "tracing a model", "train")
    module = _module(path)
    training = isinstance(task, FineTuning)
    module.train(training)
    data = parallelism.data
    if task.batch % data:
        fail(f"a batch of {task.batch} does not divide among {data} copies", key="data", value=data)
    inputs = _inputs(module, task.batch // data, task.sequence, path)
    return trace(module, inputs, name=path.resolve().name, task=task, parallelism=parallelism)


def traced_model(folder: str | Path) -> Model:
    """The model of a folder that is traced wherever it is used; its module is made once, to count its parameters."""
    path = Path(folder).resolve()
    module = _module(path)
    total = sum(parameter.numel() for parameter in module.parameters())
    config = module.config
    text = config.get_text_config()

    def size(key: str) -> int:
        found = getattr(text, key, 0)
        return found if isinstance(found, int) and found > 0 else 0

    return Model(
        name=path.name,
        family=str(config.model_type),
        kind="traced",
        layers=size("num_hidden_layers"),
        hidden_size=size("hidden_size"),
        heads=0,
        kv_heads=0,
        head_dim=0,
        ffn_size=0,
        vocabulary=size("vocab_size"),
        traced_parameters=max(1, total),
        folder=str(path),
    )


def _check(task: Task) -> None:
    problems = []
    if isinstance(task, FineTuning):
        method, asked = type(task.method).__name__, task.recomputation
        if not isinstance(task.method, Full):
            fix = "Use full training, or give a module that PEFT wraps to tierform.workload.trace."
            problems.append(Problem("a traced model is trained in full only", key="method", value=method, fix=fix))
        if asked != "none":
            problems.append(Problem("a traced model recomputes nothing", key="recomputation", value=asked))
    elif not isinstance(task, Inference):
        problems.append(Problem("a traced model has no cache: a step cannot be traced", key="task"))
    elif task.decode or not task.prefill:
        what = "a traced model has no cache: only the prompt's pass can be traced"
        problems.append(Problem(what, key="decode", value=task.decode, fix="Leave decode at 0."))
    if problems:
        raise TierformError(problems)


def _module(path: Path) -> Any:
    import torch

    library: Any = importlib.import_module("transformers")
    library.logging.set_verbosity_error()
    file = str(path / "config.json")
    try:
        config = library.AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:
        fail("transformers cannot read this configuration", file=file, fix=_first_line(error))
    stated = getattr(config, "architectures", None) or []
    made = getattr(library, stated[0], None) if stated else None
    if stated and made is None:
        fail("transformers has no such class", file=file, key="architectures", value=stated[0])
    reason = ""
    for attention in ("sdpa", "eager"):  # not every class has the first
        try:
            config._attn_implementation = attention
            with torch.device("meta"):
                return made(config) if made is not None else library.AutoModel.from_config(config)
        except (ValueError, ImportError) as error:
            reason = _first_line(error)
    return fail("transformers cannot make this model", file=file, fix=reason)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _inputs(module: Any, batch: int, sequence: int, path: Path) -> dict[str, Any]:
    import torch

    kind = getattr(module, "main_input_name", "input_ids")
    if kind == "input_features":  # mel spectra, twice as many frames as the encoder has places
        config = module.config
        frames = 2 * int(getattr(config, "max_source_positions", 1500))
        sound = torch.zeros(batch, int(getattr(config, "num_mel_bins", 80)), frames, device="meta")
        return {kind: sound, "decoder_input_ids": torch.zeros(batch, sequence, dtype=torch.long, device="meta")}
    parts: tuple[Any, Any] = (
        getattr(module.config, "text_config", None),
        getattr(module.config, "vision_config", None),
    )
    if (
        kind in ("input_ids", "pixel_values") and all(parts) and getattr(module, "logit_scale", None) is not None
    ):  # two towers
        image, words = parts[1], min(sequence, int(getattr(parts[0], "max_position_embeddings", sequence)))
        pixels = (batch, int(getattr(image, "num_channels", 3)), int(image.image_size), int(image.image_size))
        return {
            "input_ids": torch.zeros(batch, words, dtype=torch.long, device="meta"),
            "pixel_values": torch.zeros(pixels, device="meta"),
        }
    if kind == "input_ids":
        tokens = torch.zeros(batch, sequence, dtype=torch.long, device="meta")
        two = bool(getattr(module.config, "is_encoder_decoder", False))
        return {"input_ids": tokens, **({"decoder_input_ids": tokens} if two else {})}
    if kind == "pixel_values":
        size = module.config.image_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        channels = getattr(module.config, "num_channels", 3)
        return {kind: torch.zeros(batch, channels, height, width, device="meta")}
    return fail(
        f"the model takes {kind!r}, whose shape is not known here",
        file=str(path),
        value=kind,
        fix="Make the module and its inputs in Python and give both to tierform.workload.trace.",
    )
