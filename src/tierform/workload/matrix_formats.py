"""The number formats of a checkpoint matrix by matrix: of a GGUF file's tensors, or of a compression plan.

Most checkpoints have one format for all matrices of their layers (`Model.weights_format`).  In others each has its own:
llama.cpp's mixtures, and plans that `tierform compress` wrote (``compression-plan.json`` beside ``config.json``).
Layers whose formats differ are laid out apart, so bytes and times are those of every single matrix.  `simulate` takes
these formats in inference, unless the task's own weights are narrower than 16 bits already.

Limits: dense models of one stack.  Matrices of 16 or 32 bits in a file without any narrower one have the task's own
formats, as an unquantized folder's have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.errors import fail
from tierform.workload.precision import bits
from tierform.workload.targets import FUSED, HUGGING_FACE, PARTS

if TYPE_CHECKING:
    from tierform.gguf import GGUFFile
    from tierform.workload.models import Model

PLAN_SCHEMA = "tierform.compression-plan/1"
WIDE = "bf16"  # a matrix that a plan leaves as it is
LayerFormats = tuple[tuple[str, str], ...]  # (target, format) of one layer's matrices
_GGUF_TARGETS = {
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
_GGUF_PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_FORMAT = re.compile(r"int([2-8])(?:-g?([0-9]{1,4}))?(z)?|nf4-g?([0-9]{1,4})|float")


@dataclass(frozen=True, slots=True)
class MatrixFormats:
    """For each layer the formats of its matrices by target (``q``, ``down``); embedding and head, "" where wide."""

    layers: tuple[LayerFormats, ...]
    embedding: str = ""
    head: str = ""

    def of_layer(self, layer: int | str) -> LayerFormats:
        """The formats of a layer by its number; nothing for an embedding or a head."""
        return self.layers[layer] if isinstance(layer, int) and layer < len(self.layers) else ()

    def kept(self, left: list[int]) -> MatrixFormats:
        """Those of the layers that are left."""
        return replace(self, layers=tuple(self.layers[number] for number in left))

    def most_common(self) -> str:
        """The format of most matrices that are narrower than 16 bits or sparse; "" where none is."""
        every = [form for layer in self.layers for _, form in layer] + [self.embedding, self.head]
        count = Counter(form for form in every if form and (bits(form) < 16 or "@" in form))
        return max(sorted(count), key=lambda form: count[form], default="")


def with_formats(model: Model, formats: MatrixFormats, inputs: str = "") -> Model:
    """The model in these formats; the model itself where no matrix is narrower than 16 bits."""
    common = formats.most_common()
    if not common:
        return model
    alike = len({name for layer in formats.layers for _, name in layer}) == 1
    if alike and not formats.embedding and not formats.head:
        return replace(model, weights_format=common, inputs_format=inputs)
    return replace(model, weights_format=common, inputs_format=inputs, matrix_formats=formats)


# -- GGUF ----------------------------------------------------------------------------------------------------------
def gguf_model(path: Path) -> Model:
    """The model of a GGUF file, each matrix in the format in which the file holds it."""
    from tierform.gguf import read_gguf
    from tierform.workload.models import model_from_config

    file = read_gguf(path)
    model = model_from_config(file.config(), path.stem, file=str(path))
    return with_formats(model, _of_gguf(file, model.layers))


def _of_gguf(file: GGUFFile, layers: int) -> MatrixFormats:
    found: list[dict[str, str]] = [{} for _ in range(layers)]
    for tensor in file.tensors.values():
        match = re.fullmatch(r"blk\.([0-9]{1,5})\.(\w+)\.weight", tensor.name, re.ASCII)
        target = _GGUF_TARGETS.get(match[2]) if match else None
        if match is None or target is None or int(match[1]) >= layers:
            continue
        found[int(match[1])][target] = _name_of(tensor.format.name)
    for number, layer in enumerate(found):
        missing = [name for name, target in _GGUF_TARGETS.items() if target not in layer]
        if missing:
            fail(
                f"block {number} has no tensor {missing[0]!r}",
                file=str(file.path),
                key=f"blk.{number}.{missing[0]}.weight",
                fix="Only whole files of dense decoders are read.",
            )
    ends = {
        name: _name_of(file.tensors[f"{name}.weight"].format.name) if f"{name}.weight" in file.tensors else ""
        for name in ("token_embd", "output")
    }
    rows = tuple(tuple(sorted(layer.items())) for layer in found)
    return MatrixFormats(rows, ends["token_embd"], ends["output"] or ends["token_embd"])


def _name_of(block: str) -> str:
    return _GGUF_PLAIN.get(block) or block.lower()


# -- compression plans ---------------------------------------------------------------------------------------------
def with_plan_file(model: Model, file: Path) -> Model:
    """The model as a plan's file beside its configuration says it."""
    from tierform.files import read_json

    content = read_json(file).content
    if not isinstance(content, dict) or content.get("schema") != PLAN_SCHEMA:
        fail("this is not a compression plan", file=str(file), key="schema", fix=f"The schema is {PLAN_SCHEMA}.")
    return with_plan(model, content, str(file))


def with_plan(model: Model, content: Mapping[str, object], file: str = "") -> Model:
    """The model in the formats and densities of a plan's content, without the sublayers that it leaves out."""
    matrices, skipped = content.get("matrices"), content.get("skipped") or []
    if not isinstance(matrices, Mapping) or not isinstance(skipped, list):
        fail("a plan has a table of matrices and a list of skipped sublayers", file=file, key="matrices")
    found: list[dict[str, str]] = [dict.fromkeys(PARTS, WIDE) for _ in range(model.layers)]
    ends = {"embedding": "", "head": ""}
    for name, one in matrices.items():
        form = _of_plan(one, file, str(name))
        layer, targets = _place(str(name), model.layers, file)
        if layer is None:
            ends["head"] = form
            if model.tied_embeddings:
                ends["embedding"] = form
            continue
        found[layer].update(dict.fromkeys(targets, form))
    formats = MatrixFormats(tuple(tuple(sorted(one.items())) for one in found), ends["embedding"], ends["head"])
    narrow = {name for layer in formats.layers for _, name in layer}
    inputs = "int8" if content.get("method") == "smoothquant" and all(bits(one) <= 8 for one in narrow) else ""
    model = with_formats(model, formats, inputs)
    left_out: dict[str, list[str]] = {"attention": [], "ffn": []}
    for name in skipped:
        match = re.search(r"\.([0-9]{1,5})\.(attention|ffn)$", str(name), re.ASCII)
        if match is None:
            fail("no such sublayer", file=file, key="skipped", value=name)
        left_out[match[2]].append(match[1])
    if not skipped:
        return model
    return model.without(attention=",".join(left_out["attention"]), ffn=",".join(left_out["ffn"]))


def _place(name: str, layers: int, file: str) -> tuple[int | None, tuple[str, ...]]:
    """(layer, targets) of a matrix by its module's name; the layer is None for the head."""
    parts = name.split(".")
    number = next((int(one) for one in parts if one.isascii() and one.isdigit() and len(one) < 6), None)
    if number is None:
        return None, ()
    for length in (3, 2, 1):
        found = HUGGING_FACE.get(".".join(parts[-length:]))
        if found is not None and number < layers:
            single = found[-1:] if len(found) == 2 and length == 2 else found  # the last dense of a BERT layer
            return number, tuple(target for one in single for target in FUSED.get(one, (one,)))
    return fail("the plan has a matrix that the model does not have", file=file, key=name)


def _of_plan(one: object, file: str, name: str) -> str:
    """A plan's format and density as one format of a workload."""
    stated = one if isinstance(one, Mapping) else {}
    text, density = str(stated.get("format", "")), str(stated.get("density", "1"))
    match = _FORMAT.fullmatch(text)
    if match is None:
        fail("this is not a format of compressed weights", file=file, key=f"{name}.format", value=text)
    width, group, zero, nf_group = match.groups()
    if nf_group is not None:
        form = f"nf4-{nf_group}"
    elif width is None:
        form = WIDE
    else:
        form = f"int{width}-g{group}{zero or ''}" if group else f"int{width}-channel"
    if density == "1":
        return form
    return f"{form}@{density}" if ":" in density else f"{form}@{density}-bitmap"
