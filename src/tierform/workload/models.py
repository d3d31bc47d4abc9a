"""What a transformer looks like: the :class:`Model`, and where one comes from.

:func:`load_model` reads a library file, a folder with a Hugging Face ``config.json``, or a Hub id (through
``transformers``).  All three end in the same reader, because a library file states the same keys as ``config.json``.
Each architecture belongs to a family (:mod:`tierform.workload.families`), which reads those keys and lays out the
layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.errors import MissingDependency, Problem, TierformError, fail, nearest
from tierform.workload import reduced

if TYPE_CHECKING:
    from tierform.workload.config import Config
    from tierform.workload.matrix_formats import MatrixFormats

PLAN_FILE = "compression-plan.json"  # what `tierform compress` writes beside config.json
HEADS = (
    "none",
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "image-classification",
    "regression",
)


@dataclass(frozen=True)
class Model:
    """A transformer's architecture.  Sizes are counts of values; 0 or "" where a feature is absent.

    `layers` counts decoder layers in a decoder, encoder layers otherwise; an encoder-decoder has `decoder_layers` too.
    `ffn_size` is the dense feed-forward width; experts have `expert_ffn_size`.  `fixed_tokens` is set where the input
    fixes the sequence (image patches, stations); `dense_layers` lists the layers without experts, `local_layers` those
    that alone have the sliding window (all have it where none is listed).  `weights_format` and `inputs_format` are of
    a quantized checkpoint that keeps `wide_parts` of its layers (attention, ffn) as they were, `matrix_formats` of each
    of its matrices where they differ.  `expert_decay` says how unevenly its router uses its experts (0: alike; see
    `tierform.workload.expert_store`).  A model with a `folder` is traced.  The dropouts act in training only.  What a
    reduced model lacks: `tierform.workload.reduced`.
    """

    name: str
    family: str
    kind: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_size: int
    vocabulary: int = 0
    activation: str = "gelu"
    gated: bool = False
    norm: str = "layernorm"
    norm_position: str = "pre"
    positions: str = "none"
    max_positions: int = 0
    tied_embeddings: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    qk_norm: bool = False
    sliding_window: int = 0
    experts: int = 0
    experts_per_token: int = 0
    shared_experts: int = 0
    expert_ffn_size: int = 0
    expert_decay: float = 0.0
    shared_ffn_size: int = 0
    shared_gate: bool = False
    dense_layers: tuple[int, ...] = ()
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    decoder_layers: int = 0
    relative_buckets: int = 0
    embedding_size: int = 0
    type_vocabulary: int = 0
    position_offset: int = 0
    embedding_norm: bool = False
    image_size: int = 0
    patch_size: int = 0
    channels: int = 0
    input_size: int = 0
    embedding_widths: tuple[int, ...] = ()
    reduction_widths: tuple[int, ...] = ()
    decoder_widths: tuple[int, ...] = ()
    skip: str = ""
    fixed_tokens: int = 0
    labels: int = 0
    head: str = "none"
    pooler: bool = False
    final_norm: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    traced_parameters: int = 0
    folder: str = ""
    local_layers: tuple[int, ...] = ()
    norm_bias: bool = True
    norm_gain: bool = True
    qk_norm_whole: bool = False
    head_bias: bool = False
    weights_format: str = ""
    inputs_format: str = ""
    wide_parts: tuple[str, ...] = ()
    matrix_formats: MatrixFormats | None = None
    without_attention: tuple[int, ...] = ()
    without_ffn: tuple[int, ...] = ()
    sparsity: str = ""
    source: str = ""
    note: str = ""

    @cached_property
    def parameters(self) -> int:
        """How many parameters the model has; a tied weight counts once."""
        return self._totals[0]

    @cached_property
    def active_parameters(self) -> int:
        """How many parameters one token uses: with experts, only those it is routed to."""
        return self._totals[1]

    @cached_property
    def _totals(self) -> tuple[int, int]:
        if self.traced_parameters:
            return self.traced_parameters, self.traced_parameters
        from tierform.workload.expand import count_parameters

        return count_parameters(self)

    @property
    def generative(self) -> bool:
        """True where tokens are generated one by one with a KV cache."""
        return self.kind in ("decoder", "encoder-decoder") and self.head in ("causal-lm", "seq2seq-lm", "none")

    @property
    def latent_attention(self) -> bool:
        """True for multi-head latent attention (DeepSeek-V2)."""
        return self.kv_lora_rank > 0

    def without(self, *, attention: str = "", ffn: str = "", layers: str = "") -> Model:
        """The model without these attention or FFN sublayers, or whole layers: ``without(attention="21-31")``."""
        return reduced.without(self, attention=attention, ffn=ffn, layers=layers)

    def narrowed(self, heads: float = 1.0, ffn: float = 1.0) -> Model:
        """The model with a share of its heads and of its FFN's width."""
        return reduced.narrowed(self, heads, ffn)

    def sparse(self, density: str | float, format: str = "bitmap") -> Model:
        """The model with zeros in the matrices of its layers: ``2:4``, or a density as ``csr`` or ``bitmap``."""
        return reduced.sparse(self, density, format)

    def with_head(self, head: str, labels: int = 2) -> Model:
        """The same body under another head (``question-answering``, ``causal-lm``, ...)."""
        if head not in HEADS:
            fail("no such head", value=head, choices=HEADS, fix=f"Heads: {', '.join(HEADS)}.")
        from tierform.workload.families import FAMILIES

        allowed = FAMILIES.get(self.family).heads
        if head not in allowed:
            fail(
                f"the family {self.family} has no such head",
                value=head,
                choices=allowed,
                fix=f"Its heads: {', '.join(allowed)}.",
            )
        pooler = FAMILIES.get(self.family).pooled.get(head, False)
        return replace(self, head=head, pooler=pooler, labels=labels if "classification" in head else self.labels)


def load_model(name_or_path: str | Path) -> Model:
    """The model of a library name, a local folder with ``config.json`` (or that file), a GGUF file, or a Hub id.

    Raises TierformError for an unknown name, an unsupported ``model_type``, or impossible sizes (all at once).
    """
    from tierform import library

    text, path = str(name_or_path), Path(name_or_path)
    names = library.names("models")
    if text in names or not text:
        return _from_library(library.find("models", text))
    if any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in path.parts):
        fail("no model and no file has so long a name", value=text[:60])
    if path.is_dir() or path.suffix in (".json", ".yaml", ".yml"):
        return _from_path(path)
    if path.suffix == ".gguf" or _is_gguf(path):
        if not path.is_file():
            fail("no such file", value=text, fix="Give the path of a GGUF file.")
        from tierform.workload.matrix_formats import gguf_model

        return gguf_model(path)
    if text.count("/") == 1 and not text.startswith(("/", ".", "~")):
        return _from_hub(text)
    if "/" in text or text.startswith("~"):
        fix = "Give a folder that holds a config.json, a GGUF file, a library name or a Hub id."
        fail("no such folder", value=text, fix=fix)
    return fail(
        "unknown model",
        value=text,
        choices=names,
        fix="`tierform list models` shows them; a folder with config.json, a GGUF file or a Hub id also works.",
    )


def model_from_config(config: dict[str, object], name: str = "model", *, file: str = "config.json") -> Model:
    """The model that a Hugging Face configuration (as a dictionary) describes."""
    from tierform.workload.config import Config

    return _read(Config(config, file), name)


def _from_path(path: Path) -> Model:
    from tierform.files import read_json
    from tierform.workload.config import Config

    if path.suffix in (".yaml", ".yml"):
        return _from_library(path)
    file = path / "config.json" if path.is_dir() else path
    if not file.exists():
        near = sorted(entry.name for entry in path.glob("*.json")) if path.is_dir() else []
        fail(
            "the folder has no config.json",
            file=str(path),
            value="config.json",
            choices=near,
            fix="Give a folder as `save_pretrained` writes it.",
        )
    document = read_json(file)
    if not isinstance(document.content, dict):
        fail("a JSON object is needed here", file=str(file))
    name = path.resolve().name if path.is_dir() else path.resolve().parent.name
    config = Config(document.content, str(file))
    if file.name == "config.json" and _must_be_traced(document.content.get("model_type")):
        from tierform.workload.tracing.folder import traced_model

        return traced_model(file.parent)
    model = _read(config, name)
    plan = file.parent / PLAN_FILE
    if file.name != "config.json" or not plan.is_file():
        return model
    from tierform.workload.matrix_formats import with_plan_file

    return with_plan_file(model, plan)


def _is_gguf(path: Path) -> bool:
    from tierform.gguf import is_gguf

    try:
        return is_gguf(path)
    except OSError:
        return False


def _must_be_traced(model_type: object) -> bool:
    """Whether no family reads it, `transformers` knows it, and tracing is possible here."""
    from importlib.util import find_spec

    from tierform.workload.families import FAMILIES

    if (
        not isinstance(model_type, str)
        or model_type in FAMILIES
        or not (find_spec("torch") and find_spec("transformers"))
    ):
        return False
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:  # it is there and cannot be loaded
        return False
    return model_type in CONFIG_MAPPING


def _from_library(path: Path) -> Model:
    """The model of a library file, read again when the file is another."""
    known = path.stat()
    return _read_library(path, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=64)
def _read_library(path: Path, changed_ns: int, size_B: int) -> Model:
    from tierform.workload.config import read_library_file

    config, name, source, note = read_library_file(path)
    model = _read(config, name)
    config.refuse_unknown()
    return replace(model, source=source, note=note)


def _from_hub(name: str) -> Model:
    try:
        from transformers import AutoConfig
    except ImportError:
        raise MissingDependency(
            "transformers", f"reading the model {name!r} from the Hugging Face Hub", "train"
        ) from None
    try:
        found = AutoConfig.from_pretrained(name, local_files_only=not _hub_resolves())
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        from tierform import library

        short = nearest(name.rsplit("/", 1)[1], library.names("models"))
        raise TierformError(
            [
                Problem(
                    "the Hub's configuration of this model could not be read: no network, or no such model there",
                    value=name,
                    nearest=short,
                    fix=f"The Hub client says: {reason[:200]}",
                )
            ]
        ) from None
    return model_from_config(found.to_dict(), name.rsplit("/", 1)[1], file=f"{name} (Hub)")


def _hub_resolves() -> bool:
    """Whether the Hub's name resolves (or a proxy does that): the client itself retries for half a minute."""
    import os
    import socket
    from urllib.parse import urlsplit

    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    host = urlsplit(os.environ.get("HF_ENDPOINT", "")).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _read(config: Config, name: str) -> Model:
    from tierform.workload.families import family_of

    family = family_of(config)
    model: Model = family.read(config, name)
    from tierform.workload.quantization_config import exempted, read_formats

    weights, inputs = read_formats(config)
    wide = exempted(config, model.layers) if weights else ()
    config.finish()
    return replace(model, weights_format=weights, inputs_format=inputs, wide_parts=wide) if weights else model
