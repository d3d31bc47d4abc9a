"""Which layers of a PyTorch model hold static weights, what they are in a transformer, and on which tiles they sit.

A layer's role and parts come from its name, as the common model families spell it.  Tiles come from the mapping that
the cost is charged for when the model's configuration can be read, and otherwise from filling the crossbar tiles in
the order of the model's layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from tierform.errors import TierformError, fail
from tierform.numerics.chip_view import CrossbarFormat, crossbar_component

if TYPE_CHECKING:
    from tierform.chip.description import Chip
    from tierform.mapping import Mapping
    from tierform.numerics.formats import BitPlan
    from tierform.simulation.result import Result
    from tierform.workload import Workload

# (pattern of the end of a module's name, role, parts).  The first that matches counts.
_NAMES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"(lm_head|classifier|score|pooler(\.dense)?|qa_outputs|embed_out|prediction_head)$", "head", ()),
    (r"(^|\.)(cls|predictions|heads?|lm_head|classifier|vocab_transform|vocab_projector)(\..*)?$", "head", ()),
    (r"(c_attn|qkv|qkv_proj|query_key_value|in_proj)$", "attention", ("q", "k", "v")),
    (r"(query|q_proj|q_lin|q_linear|\.q|wq)$", "attention", ("q",)),
    (r"(key|k_proj|k_lin|k_linear|\.k|wk)$", "attention", ("k",)),
    (r"(value|v_proj|v_lin|v_linear|\.v|wv)$", "attention", ("v",)),
    (
        r"(attention\.output\.dense|attn\.c_proj|attn\.proj|attention\.dense|self_attn\.dense|o_proj|out_proj|out_lin|out_linear|"
        r"attention\.o|SelfAttention\.o|EncDecAttention\.o|wo_attn)$",
        "attention",
        ("o",),
    ),
    (r"(q_a_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj)$", "attention", ()),  # latent attention
    (r"(gate_proj|wi_0)$", "ffn", ("gate",)),
    (r"(intermediate\.dense|c_fc|up_proj|fc1|lin1|wi|wi_1|dense_h_to_4h|linear1|fc_in)$", "ffn", ("up",)),
    (r"(output\.dense|mlp\.c_proj|down_proj|fc2|lin2|wo|dense_4h_to_h|linear2|fc_out)$", "ffn", ("down",)),
)
ROLES = ("attention", "ffn", "head", "other")


@dataclass(frozen=True, slots=True)
class StaticLinear:
    """A linear layer with a static weight: its name, role, parts (q, k, v, o, up, gate, down) and layer number."""

    name: str
    module: nn.Module
    role: str
    parts: frozenset[str] = field(default_factory=frozenset)
    layer: int = 0

    @property
    def transposed(self) -> bool:
        """True for Hugging Face's Conv1D, which keeps (inputs, outputs)."""
        return type(self.module).__name__ == "Conv1D"

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = getattr(self.module, "weight").shape
        return (columns, rows) if self.transposed else (rows, columns)


def role_of(name: str) -> tuple[str, frozenset[str], int]:
    """Role, parts and layer number of a module by its name."""
    plain = name.removesuffix(".base_layer")
    numbers = re.findall(r"\.(\d+)(?=\.|$)", "." + plain)
    layer = int(numbers[0]) if numbers else 0
    for pattern, role, parts in _NAMES:
        if re.search(pattern, "." + plain):
            return role, frozenset(parts), layer
    return "other", frozenset(), layer


def static_linears(model: nn.Module, *, head: bool = False) -> list[StaticLinear]:
    """The model's static linear layers in order; adapters, output heads (unless `head`) and the fused projections of
    ``nn.MultiheadAttention``, which never calls its own linear layers, are left out.
    """
    closed = [f"{name}." for name, part in model.named_modules() if isinstance(part, nn.MultiheadAttention)]
    found = []
    for name, part in model.named_modules():
        linear = isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
        if not linear or name.startswith(tuple(closed)) or re.search(r"lora_|modules_to_save|vera_|adapter", name):
            continue
        role, parts, layer = role_of(name)
        if role == "head" and not head:
            continue
        found.append(StaticLinear(name, part, role, parts, layer))
    return found


@dataclass(frozen=True, slots=True)
class Places:
    """Where static layers are computed: tiles by name of those in crossbars, names of the others, and who says so.

    `origin` is ``mapping`` (what the cost is charged for), or ``layer order`` where that says nothing of a layer.
    """

    tiles: dict[str, tuple[int, ...]]
    elsewhere: frozenset[str]
    origin: str


def places_of(
    model: nn.Module,
    chip: Chip,
    linears: list[StaticLinear],
    forms: list[CrossbarFormat],
    plan: BitPlan,
    result: Result | None = None,
) -> Places:
    """Where each layer is computed by the mapping that `simulate` charges; TierformError when they do not fit.

    The mapping is the one of `result`, or the best of a few for one sequence.  Layers that it reads from memory beside
    the crossbars, on another component, are `elsewhere`; layers that it writes into cells for every pass sit in the
    region that they share.
    """
    name, component = crossbar_component(chip)
    mapped = _charged(model, chip, plan, result)
    each = component.crossbars / sum(chip.units_at(name))
    tiles: dict[str, tuple[int, ...]] = {}
    elsewhere: set[str] = set()
    position, complete = 0, True
    for linear, form in zip(linears, forms, strict=True):
        spots = [(linear.role, part, linear.layer) for part in sorted(linear.parts)]
        if spots and all(spot in mapped for spot in spots):
            found = [mapped[spot] for spot in spots]
            if all(found):
                tiles[linear.name] = tuple(dict.fromkeys(tile for one in found for tile in one))
            else:
                elsewhere.add(linear.name)
            continue
        complete = False
        first, position = position, position + form.crossbars(*linear.shape)
        tiles[linear.name] = chip.tiles_of_units(name, first / each, position / each)
    if position > component.crossbars:
        fail(
            f"the layers need {position:,} crossbars and {chip.name!r} has {component.crossbars:,}",
            key="chip",
            value=chip.name,
            fix="Use fewer bits, fewer layers (modules=...) or a larger chip.",
        )
    return Places(tiles, frozenset(elsewhere), "mapping" if complete and mapped else "layer order")


def read_from_memory(model: nn.Module, chip: Chip, plan: BitPlan) -> frozenset[tuple[str, str, int]]:
    """The weights (role, part, layer) that the best mapping leaves in memory: they are not computed in crossbars."""
    return frozenset(spot for spot, tiles in _charged(model, chip, plan, None).items() if not tiles)


_Spot = tuple[str, str, int]


def _charged(model: nn.Module, chip: Chip, plan: BitPlan, result: Result | None) -> dict[_Spot, tuple[int, ...]]:
    """Tiles by (role, part, layer) of the mapping that is charged, none where it has no crossbars for a weight.

    Empty where the model's configuration or the mapping cannot be had.
    """
    from tierform.simulation.choose import choose
    from tierform.simulation.job import Job
    from tierform.workload import Inference, expand
    from tierform.workload.models import model_from_config
    from tierform.workload.precision import PrecisionPlan

    config: object = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return {}
    precision = (chip.precision or PrecisionPlan()).with_weights(f"M{plan.attention}F{plan.ffn}")
    try:
        described = model_from_config(config.to_dict())
        task = Inference(batch=1, sequence=min(64, described.max_positions or 64), precision=precision)
        if result is not None and result.mapping is not None:
            return _spots(result.mapping, expand(described, task))
        trial = choose(Job(model=described, task=task, chip=chip).loaded(), gains=False)
    except TierformError:
        return {}
    return _spots(trial.mapping, trial.workload)


def _spots(mapping: Mapping, workload: Workload) -> dict[_Spot, tuple[int, ...]]:
    layers: dict[str, int] = {}
    for block in workload.stages[0].waves[0].blocks:
        for weight in {operator.weight for operator in block.operators if operator.weight}:
            layers[weight] = layers.get(weight, 0) + block.count
    found: dict[_Spot, tuple[int, ...]] = {}
    for weight, count in layers.items():
        if weight.count(".") != 1:
            continue
        role, part = weight.split(".")
        placed = [item for item in mapping.placements if item.weight == weight]
        # The resident layers come first; those that are written for every pass share one region.
        tiles = [one for item in placed if item.resident for one in item.tiles]
        tiles += [item.tiles[0] for item in placed if not item.resident for _ in range(item.layers)]
        if len(tiles) in (0, count):
            found |= {(role, part, layer): tiles[layer] if tiles else () for layer in range(count)}
    return found
