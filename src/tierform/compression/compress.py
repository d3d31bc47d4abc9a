"""A model compressed from end to end: checked, walked layer by layer, written whole; an interrupted run goes on.

What each finished layer became is kept in a folder beside the result (``.NAME.layers``) with the settings that made it;
a later run with the same settings takes the layers from there, another one refuses.  The folder goes away at the end.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.formats import DENSE, FLOAT, Density, WeightFormat
from tierform.compression.methods import METHODS, MethodEntry, Wanted, check_method
from tierform.compression.plan import FILE_NAME, MatrixPlan, Plan
from tierform.compression.sensitivity import head_site, head_statistics
from tierform.compression.sites import Anatomy, Site, anatomy, skip_sublayers
from tierform.compression.walk import InputStatistics, begin
from tierform.errors import fail
from tierform.files import read_json, write_json

Progress = Callable[[str, int, int], None]
INPUT_BITS = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is asked for: a method, a format, a density, matrices left as they are (name patterns), a seed.

    `formats` are those of single matrices, by name, in the place of `format`; only there the head may stand.
    """

    method: str
    format: WeightFormat = FLOAT
    density: Density = DENSE
    exact: tuple[str, ...] = ()
    seed: int = 0
    formats: Mapping[str, WeightFormat] = field(default_factory=dict)

    def of(self, name: str) -> WeightFormat:
        """The format of one matrix."""
        return self.formats.get(name, self.format)

    def describe(self) -> dict[str, Any]:
        """As texts, for files."""
        return {
            "method": self.method,
            "format": str(self.format),
            "density": str(self.density),
            "exact": list(self.exact),
            "seed": self.seed,
            **({"formats": sorted({str(one) for one in self.formats.values()})} if self.formats else {}),
        }


class LayerJournal:
    """What finished layers became, so that an interrupted run goes on; without a folder nothing is kept."""

    def __init__(self, result: Path | None, fingerprint: str) -> None:
        """`result` is the folder that the compressed model will have."""
        self.folder = None if result is None else result.parent / f".{result.name}.layers"
        if self.folder is None:
            return
        if self.folder.exists():
            settings = self.folder / "settings.json"
            found: object = read_json(settings).content if settings.exists() else {}
            if not isinstance(found, dict) or found.get("fingerprint") != fingerprint:
                fail(
                    "an unfinished compression with other settings, text or model lies here",
                    file=str(self.folder),
                    fix="Finish it with its own settings, or delete the folder.",
                )
            return
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            fail(f"cannot write here: {error.strerror or error}", file=str(self.folder))
        write_json(self.folder / "settings.json", {"fingerprint": fingerprint})

    def _file(self, layer: int) -> Path:
        assert self.folder is not None
        return self.folder / f"layer-{layer:04d}.safetensors"

    def load(self, layer: int, module: nn.Module) -> bool:
        """Bring a finished layer's weights back; False when it is not there."""
        from safetensors.torch import load_file

        if self.folder is None or not self._file(layer).is_file():
            return False
        module.load_state_dict(load_file(self._file(layer)))
        return True

    def save(self, layer: int, module: nn.Module) -> None:
        """Keep a finished layer."""
        from safetensors.torch import save_file

        if self.folder is None:
            return
        part = self._file(layer).with_suffix(".part")
        try:
            save_file({name: one.contiguous() for name, one in module.state_dict().items()}, part)
            part.replace(self._file(layer))
        except OSError as error:
            fail(f"cannot keep a finished layer: {error.strerror or error}", file=str(part))

    def finish(self) -> None:
        """Everything is written elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(model: nn.Module, windows: Tensor, settings: Mapping[str, object]) -> str:
    """What decides the result: settings, the calibration tokens, and the model's weights (sampled)."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(windows.numpy().tobytes())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(flat[:: max(1, flat.numel() // 64)].float().numpy().tobytes())
    return digest.hexdigest()


def compress_model(
    model: nn.Module,
    windows: Tensor,
    recipe: Recipe,
    *,
    skipped: tuple[str, ...] = (),
    journal: LayerJournal | None = None,
    progress: Progress | None = None,
    key: str = "input_ids",
) -> Plan:
    """Compress a model in place by one pass over calibration windows; the plan says what each matrix became.

    `skipped` sublayers are left out first.  TierformError before anything changes when the method cannot make what is
    asked for, a weight is not finite, or a group does not fit.
    """
    narrow = [form for form in dict.fromkeys(recipe.formats.values()) if form.kind != "float"]
    for form in narrow if recipe.formats else [recipe.format]:
        check_method(recipe.method, Wanted(form, recipe.density, recipe.seed))
    method = METHODS[recipe.method]
    parts = anatomy(model)
    chosen = _chosen(parts, recipe)
    before = sum(parameter.numel() for parameter in model.parameters())
    if skipped:
        skip_sublayers(model, skipped)
    walk = begin(model, windows, key=key)
    journal = journal or LayerJournal(None, "")
    last = max((site.layer for site in parts.sites if site.name in chosen), default=-1)
    for layer in walk:
        if layer > last:
            break
        if progress is not None:
            progress("compressing", layer, len(parts.layers))
        if not any(site.name in chosen for site in parts.of_layer(layer)) or journal.load(layer, parts.layers[layer]):
            continue
        for found in walk.statistics():
            _replace(found, [site for site in found.sites if site.name in chosen], method, recipe)
        journal.save(layer, parts.layers[layer])
    if progress is not None:
        progress("compressing", len(parts.layers), len(parts.layers))
    left_out = {parts.sublayers[name].name for name in skipped}
    matrices = {
        site.name: MatrixPlan(site.shape, recipe.of(site.name), recipe.density)
        for site in parts.sites
        if site.name in chosen and site.name not in left_out
    }
    head = head_site(model)
    if head is not None and head.name in recipe.formats:
        if recipe.of(head.name).kind != "float":
            _replace(head_statistics(model, head, windows), [head], method, recipe)
        matrices[head.name] = MatrixPlan(head.shape, recipe.of(head.name))
    held = sum(one.shape[0] * one.shape[1] for one in matrices.values())
    return Plan(
        model=type(model).__name__,
        method=recipe.method,
        matrices=matrices,
        skipped=skipped,
        exact_B=2 * (before - held),
        settings={**recipe.describe(), "windows": list(windows.shape)},
    )


def _replace(found: InputStatistics, sites: list[Site], method: MethodEntry, recipe: Recipe) -> None:
    """Compress the matrices of one input, those of a format together."""
    for form in dict.fromkeys(recipe.of(site.name) for site in sites):
        if form.kind == "float" and recipe.density.dense:
            continue
        found.sites = [site for site in sites if recipe.of(site.name) == form]
        for site, values in zip(found.sites, method.run(found, Wanted(form, recipe.density, recipe.seed)), strict=True):
            if not bool(torch.isfinite(values).all()):
                fail("the method gave values that are not finite", key=site.name, value=recipe.method)
            site.set_matrix(values)


def _chosen(parts: Anatomy, recipe: Recipe) -> set[str]:
    names = [site.name for site in parts.sites]
    left = left_exact(names, recipe.exact)
    for site in parts.sites:
        inputs = site.shape[1]
        if site.name not in left and recipe.density.of and inputs % recipe.density.of:
            fail(
                f"its {inputs} inputs are no whole groups of {recipe.density.of}",
                key=site.name,
                value=str(recipe.density),
                fix=f"Leave it exact: --exact '{site.name}'.",
            )
    return set(names) - left


def left_exact(names: list[str], patterns: tuple[str, ...]) -> set[str]:
    """The matrices that patterns leave as they are; TierformError for a pattern that fits none."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            fail("no matrix has a name like this", key="--exact", value=pattern, choices=names)
    return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


def round_inputs(model: nn.Module, bits: int = INPUT_BITS) -> list[Any]:
    """Round the inputs of all sites per token, as SmoothQuant's run time does; the hooks, to be removed."""
    from tierform.numerics.formats import Quantizer
    from tierform.numerics.quantize import per_token

    quantizer = Quantizer(f"int{bits}", "channel")
    return [
        site.module.register_forward_pre_hook(lambda _m, given: (per_token(given[0], quantizer), *given[1:]))
        for site in anatomy(model).sites
    ]


def needed_B(parameters: int, widest: int, windows: int, length: int, hidden: int, copies: int = 2) -> int:
    """An estimate of the memory that compression takes: float32 models, one layer's statistics, hidden states."""
    return 4 * (copies * parameters + 6 * widest**2 + 2 * windows * length * hidden)


def check_memory(needed: int, available: int | None) -> None:
    """TierformError before anything starts when the memory will not do."""
    if available is not None and needed > available:
        fail(
            f"compression would take about {needed / 1e9:.1f} GB and {available / 1e9:.1f} GB are free",
            key="memory",
            fix="Use fewer or shorter windows (--windows, --length), a smaller model, or a larger machine.",
        )


def available_B() -> int | None:
    """Free memory of this machine; None where it cannot be told."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def write_compressed(model: Any, source: Path, plan: Plan, folder: Path) -> Path:
    """The compressed model as an ordinary folder with its plan and the small files of the model it came from."""
    from tierform.compression.checkpoints.folder import write_folder

    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(source.iterdir())
        if path.suffix in (".json", ".txt", ".jinja")
        and path.name not in (FILE_NAME, "config.json")
        and not path.name.endswith(".index.json")
    }
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    texts["config.json"] = json.dumps({**config, "dtype": "float16"}, indent=1, default=str)
    texts[FILE_NAME] = json.dumps(plan.to_dict(), indent=1)
    tied = (
        set(getattr(model, "_tied_weights_keys", None) or ())
        if getattr(model.config, "tie_word_embeddings", False)
        else set()
    )
    tensors = {
        name: one.half() if one.is_floating_point() else one
        for name, one in model.state_dict().items()
        if name not in tied
    }
    return write_folder(folder, tensors, texts)


__all__ = [
    "LayerJournal",
    "Recipe",
    "available_B",
    "check_memory",
    "compress_model",
    "fingerprint",
    "needed_B",
    "round_inputs",
    "write_compressed",
]
