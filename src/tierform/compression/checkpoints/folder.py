"""Ordinary Hugging Face folders: written whole or not at all, and read from a folder or a GGUF file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tierform.errors import MissingDependency, fail

WEIGHTS = "model.safetensors"


def write_folder(folder: Path, tensors: Mapping[str, Any], texts: Mapping[str, str]) -> Path:
    """A model folder of one safetensors file and text files.

    It is made beside its place and renamed there; a folder that exists is replaced only when it is a model folder.
    """
    from safetensors.torch import save_file

    if folder.exists() and not (folder.is_dir() and ((folder / WEIGHTS).exists() or not any(folder.iterdir()))):
        fail("this is not a model folder and is left alone", file=str(folder), fix="Choose another place.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        fail(f"cannot write here: {error.strerror or error}", file=str(folder))
    try:
        save_file({name: one.contiguous() for name, one in tensors.items()}, made / WEIGHTS, metadata={"format": "pt"})
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        made.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
    except OSError as error:
        fail(f"cannot write the model: {error.strerror or error}", file=str(folder))
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def load_language_model(model: Path | str) -> tuple[Any, Any]:
    """A causal language model in float32, and its tokenizer, from a folder, a fetched model's name or a GGUF file."""
    return _load(model, "AutoModelForCausalLM"), load_tokenizer(model)


def load_network(model: Path | str, kind: str = "AutoModel") -> Any:
    """A model of an auto class of transformers, in float32, in evaluation mode."""
    return _load(model, kind)


def model_folder(model: Path | str) -> Path:
    """The folder of a model: as given, of a fetched model by name, or a GGUF file's converted twin in the cache."""
    from tierform.compression.checkpoints.packages import PACKAGES, fetched_folder
    from tierform.gguf import is_gguf

    path = Path(model)
    if is_gguf(path):
        return _converted(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            fail("the folder has no config.json", file=str(path), fix="A Hugging Face model folder is needed.")
        return path
    if str(model) in PACKAGES:
        found = fetched_folder(str(model))
        if found is None:
            fail(
                "this model has not been fetched yet",
                value=str(model),
                fix=f"Fetch it with: tierform models get {model}",
            )
        return found
    return fail(
        "no such model",
        value=str(model),
        choices=PACKAGES,
        fix=f"Give a model folder, a GGUF file, or one of {', '.join(PACKAGES)} (tierform models get).",
    )


def _converted(path: Path) -> Path:
    from tierform.compression.checkpoints.gguf_model import convert_gguf

    stat = path.stat()
    folder = _shelf() / "gguf" / f"{path.stem}-{stat.st_size:x}-{int(stat.st_mtime):x}"
    return folder if (folder / WEIGHTS).is_file() else convert_gguf(path, folder)


def _shelf() -> Path:
    """Where converted twins lie: the cache, or this user's temporary folder where it is switched off."""
    from tierform.files import cache_folder

    shelf = cache_folder("models")
    if shelf is not None:
        return shelf
    return Path(tempfile.gettempdir()) / f"tierform-models-{os.getuid() if hasattr(os, 'getuid') else 0}"


def plain_folder(folder: Path) -> Path:
    """A quantized folder's twin in the cache, with the float32 weights that its integers stand for; others as given."""
    from tierform.compression.checkpoints.quantized import METHODS, plain_tensors, quantization_of

    settings = quantization_of(folder)
    if settings is None or settings.get("quant_method") not in METHODS:
        return folder
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    marks = "".join(f"{one.name}{one.stat().st_size}{one.stat().st_mtime_ns}" for one in files)
    name = f"{folder.resolve().name}-{hashlib.sha256(marks.encode()).hexdigest()[:12]}"
    twin = _shelf() / "plain" / name
    if (twin / WEIGHTS).is_file():
        return twin
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".txt", ".jinja") and not path.name.endswith(".index.json")
    }
    config = json.loads(texts["config.json"])
    del config["quantization_config"]
    texts["config.json"] = json.dumps({**config, "dtype": "float32"}, indent=1)
    return write_folder(twin, plain_tensors(folder), texts)


def _load(model: Path | str, kind: str) -> object:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependency(str(error.name), "loading a model", "train") from None
    folder = model_folder(model)
    try:
        from tierform.compression.checkpoints.quantized import load_quantized, quantization_of

        if quantization_of(folder) is not None:
            return load_quantized(folder, kind)
        loaded = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        fail(f"the model cannot be loaded: {lines[0]}", file=str(folder))
    return loaded.eval()


def load_tokenizer(model: Path | str) -> Any:
    """The model's own tokenizer, from its folder."""
    import transformers

    folder = model_folder(model)
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        fail(f"the tokenizer cannot be loaded: {lines[0]}", file=str(folder))
