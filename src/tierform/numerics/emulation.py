"""A model on a chip: every static linear layer replaced by its emulation, or none of them.

    model = emulate(AutoModelForSequenceClassification.from_pretrained(folder), "atleus", noise="rram-wan-2022")
    logits = model(**batch).logits

Attention products, softmax, normalization, embeddings, adapters and (unless asked for) the output head stay digital,
as on the chip.  The model is copied, unless `inplace`; everything is checked and built before the first layer changes.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import nn

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.numerics.chip_view import CrossbarFormat, crossbar_format
from tierform.numerics.digital import DigitalShare, input_energies
from tierform.numerics.formats import BitPlan, Quantizer
from tierform.numerics.layer import FIDELITIES, CrossbarLinear
from tierform.numerics.placement import StaticLinear, places_of, static_linears

if TYPE_CHECKING:
    from torch import Tensor

    from tierform.simulation.result import Result

    Temperatures = float | dict[int, float] | Sequence[float] | Result
    from collections.abc import Sequence

    from tierform.chip.description import Chip
    from tierform.numerics.noise import Noise

SCALES = ("crossbar", "column")
ModelT = TypeVar("ModelT", bound=nn.Module)


def emulate(
    model: ModelT,
    chip: Chip | str | Path,
    *,
    bits: str | int | BitPlan = 8,
    noise: Noise | str | Sequence[str] | None = None,
    temperature_K: Temperatures = 300.0,
    seed: int = 0,
    quantizer: Quantizer | None = None,
    fidelity: str = "bits",
    head: bool = False,
    modules: Sequence[str] = (),
    scale: str = "crossbar",
    digital: DigitalShare | None = None,
    calibration: Callable[[nn.Module], Any] | None = None,
    inplace: bool = False,
    **changes: object,
) -> ModelT:
    """The model as the chip computes it: weights on the tiles of the mapping that :func:`tierform.simulate` charges.

    What that mapping reads from memory on another component stays digital.
    `bits` is a width or a plan (``M8F4``); `noise` a :class:`Noise`, names of noise files, or None; `temperature_K` one
    temperature, one per tile number, or a simulation's Result with heat, whose mapping then holds.  `quantizer` changes
    how weights are rounded (its format follows `bits`); `changes` sets single fields of the chip's
    :class:`CrossbarFormat`.  `modules` limits the layers to those whose name contains one of the texts.  `scale` is
    what shares a scale, ``crossbar`` or ``column``.  `digital` says what stays digital beside the crossbars; its
    channels are chosen, and the large weights of adapters weighed, by the inputs that `calibration(model)` drives
    (without it all count the same).  `seed` is the chip instance.  TierformError when no layer fits, a weight is not
    finite, or the chip is too small.
    """
    from tierform.chip.description import load_chip
    from tierform.numerics.noise import Noise, load_noise

    if fidelity not in FIDELITIES:
        fail("unknown fidelity", value=fidelity, choices=FIDELITIES, fix=f"Known: {', '.join(FIDELITIES)}.")
    loaded = load_chip(chip) if isinstance(chip, (str, Path)) else chip
    plan = BitPlan.parse(bits)
    base = crossbar_format(loaded, **{"input_bits": plan.activations, **changes})
    if noise is not None and not isinstance(noise, Noise):
        noise = load_noise(noise)
    target = model if inplace else copy.deepcopy(model)
    linears = static_linears(target, head=head)
    if modules:
        _check_names(modules, [linear.name for linear in linears])
        linears = [linear for linear in linears if any(text in linear.name for text in modules)]
    linears = [linear for linear in linears if not isinstance(linear.module, CrossbarLinear)]
    linears = _without_digital(linears, digital)
    if scale not in SCALES:
        fail("unknown sharing of scales", key="scale", value=scale, choices=SCALES, fix=f"Known: {', '.join(SCALES)}.")
    energies: dict[str, Tensor] = {}
    if calibration is not None:
        energies = input_energies(target, linears, calibration)
    if not linears:
        fail(
            "the model has no linear layer that crossbars could hold",
            value=type(model).__name__,
            fix="Static nn.Linear and Conv1D layers are; adapters and output heads are not (head=True).",
        )
    forms = [replace(base, weight_bits=plan.weight_bits(item.name, item.role)) for item in linears]
    places = places_of(target, loaded, linears, forms, plan, _result(temperature_K))
    if not places.tiles:
        fail(
            "the mapping reads every layer from memory, and no crossbar computes any",
            key="chip",
            value=loaded.name,
            fix="Give the result of simulate(..., mapping='plain') as temperature_K, or say 'place' in the chip file.",
        )
    temperatures = tile_temperatures(temperature_K)
    built: list[tuple[str, CrossbarLinear]] = []
    problems: list[Problem] = []
    for number, (linear, form) in enumerate(zip(linears, forms, strict=True)):
        if linear.name in places.elsewhere:
            continue
        try:
            layer = CrossbarLinear(
                cast(nn.Parameter, linear.module.weight),
                cast("nn.Parameter | None", linear.module.bias),
                form,
                transposed=linear.transposed,
                quantizer=_quantizer(quantizer, form, scale),
                noise=noise,
                temperature_K=temperatures,
                tiles=places.tiles[linear.name],
                seed=layer_seed(seed, number),
                name=linear.name,
                digital=digital,
                energy=energies.get(linear.name),
            )
        except TierformError as error:
            problems += error.problems
            continue
        layer.fidelity = fidelity
        layer.train(linear.module.training)
        built.append((linear.name, layer))
    if problems:
        raise TierformError(problems)
    for name, layer in built:
        target.set_submodule(name, layer)
    if plan.kv_cache:
        _round_cache(target, plan.kv_cache)
    return target


def layer_seed(instance: int, layer: int) -> int:
    """The seed of one layer of one chip instance (no two layers share errors)."""
    return (instance * 1_000_003 + layer * 7919 + 17) % 2**31


def _check_names(wanted: Sequence[str], names: list[str]) -> None:
    for text in wanted:
        if not any(text in name for name in names):
            fail(
                "no static linear layer has this in its name",
                key="modules",
                value=text,
                choices=names,
                fix=f"For example {nearest(text, names) or names[:1]!r}.",
            )


def _without_digital(linears: list[StaticLinear], digital: DigitalShare | None) -> list[StaticLinear]:
    """The layers that no pattern leaves digital."""
    names = [linear.name for linear in linears]
    patterns = digital.layers if digital is not None else ()
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            fail("no static linear layer has a name like this", key="digital_layers", value=pattern, choices=names)
    return [one for one in linears if not any(fnmatch.fnmatchcase(one.name, pattern) for pattern in patterns)]


def _quantizer(given: Quantizer | None, form: CrossbarFormat, scale: str) -> Quantizer:
    block = (form.rows, form.weights_per_row)
    if given is None:
        kind: Any = scale
        return Quantizer(f"int{form.weight_bits}", kind, block=block)
    return replace(given, format=f"int{form.weight_bits}", block=block)


def _round_cache(model: nn.Module, bits: int) -> None:
    """Round the outputs of key and value projections as the KV cache stores them."""
    from tierform.numerics.quantize import per_token

    quantizer = Quantizer(f"int{bits}", "channel")
    for linear in static_linears(model):
        kept = linear.parts & {"k", "v"}
        if kept == {"k"} or kept == {"v"}:
            linear.module.register_forward_hook(lambda _module, _inputs, output: per_token(output, quantizer))
        elif kept:
            linear.module.register_forward_hook(
                lambda _module, _inputs, output: _round_last_two_thirds(output, quantizer)
            )


def _round_last_two_thirds(output: Tensor, quantizer: Quantizer) -> Tensor:
    import torch

    from tierform.numerics.quantize import per_token

    q, k, v = output.chunk(3, dim=-1)
    return torch.cat([q, per_token(k, quantizer), per_token(v, quantizer)], dim=-1)


def _result(given: Temperatures) -> Result | None:
    from tierform.simulation.result import Result

    return given if isinstance(given, Result) else None


def tile_temperatures(given: Temperatures) -> float | dict[int, float]:
    """One temperature, or one per tile number: from a number, a mapping, a sequence by tile, or a Result with heat."""
    if isinstance(given, (int, float)):
        _check_temperature(float(given))
        return float(given)
    from tierform.simulation.result import Result

    heat: Any = given.thermal if isinstance(given, Result) else given
    if heat is None:
        fail("the result has no temperatures", key="temperature_K", fix="Simulate with the thermal model.")
    if isinstance(heat, dict) and any(isinstance(key, str) for key in heat):
        if "dies" not in heat:
            fail("no temperature by tile in this result", key="temperature_K", value=sorted(map(str, heat))[:8])
        heat = [kelvin for die in heat["dies"] for row in die["map_K"] for kelvin in row]
    pairs = heat.items() if isinstance(heat, dict) else enumerate(heat)
    result = {int(tile): float(kelvin) for tile, kelvin in pairs}
    for kelvin in result.values():
        _check_temperature(kelvin)
    return result


def _check_temperature(kelvin: float) -> None:
    if not 0 < kelvin < 2000:
        fail("a temperature in kelvin above 0 is needed", key="temperature_K", value=kelvin)


def crossbar_layers(model: nn.Module) -> Iterator[CrossbarLinear]:
    """The emulated layers, in order."""
    for module in model.modules():
        if isinstance(module, CrossbarLinear):
            yield module


def set_fidelity(model: nn.Module, fidelity: str, *, fresh: bool = True) -> None:
    """Set all layers to ``bits``, ``surrogate`` or ``weights``; `fresh` False leaves out what every pass draws."""
    if fidelity not in FIDELITIES:
        fail("unknown fidelity", value=fidelity, choices=FIDELITIES, fix=f"Known: {', '.join(FIDELITIES)}.")
    for layer in crossbar_layers(model):
        layer.fidelity, layer.fresh = fidelity, fresh


def new_chip_instance(model: nn.Module, seed: int) -> None:
    """Program the same weights into another chip: every layer draws its errors anew, from `seed`."""
    for number, layer in enumerate(crossbar_layers(model)):
        layer.program(layer_seed(seed, number))


def describe(model: nn.Module) -> list[dict[str, Any]]:
    """One row per emulated layer: sizes, bits, crossbars, tiles, whether ADCs are lossless, weight error."""
    rows = []
    for layer in crossbar_layers(model):
        matrix = layer.matrix
        error = float((layer.effective - matrix).norm() / matrix.norm().clamp(min=1e-30))
        rows.append(
            {
                "layer": layer.layer_name,
                "outputs": layer.out_features,
                "inputs": layer.in_features,
                "weight_bits": layer.quantizer.bits,
                "crossbars": layer.form.crossbars(layer.out_features, layer.in_features),
                "tiles": list(layer.tiles),
                "adc_lossless": not layer.noisy and layer.lossless,
                "relative_weight_error": error,
                "digital_products": 0 if layer.part is None else layer.part.products,
            }
        )
    return rows
