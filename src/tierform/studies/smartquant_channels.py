"""Precision by input channel and token on a real model: nested integers, dynamic against static and uniform.

SmolLM2-135M (a decoder; perplexity) and MiniLM (an encoder that was never quantized; the error of its features) are run
with every matrix read at an average number of planes: alike for all channels (uniform), by the mean square of each
channel's input on calibration text (static), or by each token's own input (dynamic); equally in all matrices, or shared
over them by how much their outputs matter.  Differences are paired by window, with Student's intervals at 95 %.  A
batch reads the union: the sum over its tokens decides, and the gain falls.

Limits: fetched models (``tierform models get``); windows of 256 tokens of the texts given, or of Python's own language
reference; error is measured after the planes are chosen, so the rule's own time is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import TierformError
from tierform.studies.study import Check, StudyOptions, Table

if TYPE_CHECKING:
    from tierform.store.channel_model import Reading

HEAD = ("model", "rule", "planes", "channels together", "batch", "quality", "nats or error above exact", "95 %")
TITLE = "Nested integers by input channel"
PAIRS = "Dynamic against the others, at equal planes read"
LENGTH = 256
MODELS = {"smollm2-135m": "AutoModelForCausalLM", "minilm": "AutoModel"}
ABSENT = (
    "Precision by input channel is not shown: no real model has been fetched (tierform models get smollm2-135m, "
    "tierform models get minilm)."
)


@dataclass(frozen=True, slots=True)
class ChannelFindings:
    """Tables, checks and remarks of the real models that are at hand."""

    tables: tuple[Table, ...]
    checks: tuple[Check, ...]
    remarks: tuple[str, ...]


def _half_width(values: NDArray[np.float64]) -> float:
    from scipy.special import stdtrit

    if len(values) < 2:
        return 0.0
    return float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))


def _losses(model: Any, windows: Any) -> NDArray[np.float64]:
    """The mean loss a token of each window, all windows in one batch."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=windows).logits[:, :-1].float()
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")
    return np.asarray(each.mean(1).double().numpy())


def _feature_error(model: Any, windows: Any, exact: Any) -> NDArray[np.float64]:
    """Relative error of each window's features."""
    import torch

    with torch.no_grad():
        found = model(input_ids=windows).last_hidden_state
    return np.asarray(((found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).double().numpy())


def readings(quick: bool, decoder: bool) -> list[Any]:
    """What is run: (rule, planes, channels together, batch)."""
    from tierform.store.channel_model import Reading

    found = [Reading("uniform", 3), Reading("static", 3), Reading("dynamic", 3)]
    if not quick:
        found += [
            Reading("dynamic", 3, shared=True),
            Reading("static", 3, shared=True),
            Reading("uniform", 4),
            Reading("static", 4),
            Reading("static", 4, shared=True),
            Reading("dynamic", 4),
            Reading("dynamic", 4, shared=True),
            Reading("dynamic", 4, together=16),
        ]
        if decoder:
            found += [Reading("dynamic", 4, together=64), Reading("dynamic", 3, batch=4)]
    return found


def measured(options: StudyOptions, train: str, test: str) -> ChannelFindings:
    """Run the real models that have been fetched; a remark where there is none."""
    from tierform.compression.checkpoints.packages import fetched_folder

    names = [name for name in MODELS if fetched_folder(name) is not None]
    if not names:
        return ChannelFindings((), (), (ABSENT,))
    rows: list[tuple[Any, ...]] = []
    pairs: list[tuple[Any, ...]] = []
    checks: list[Check] = []
    remarks: list[str] = []
    for name in names[: 1 if options.quick else None]:
        try:
            _one(name, options, train, test, rows, pairs, checks)
        except TierformError as error:
            remarks.append(f"{name} was not run: {error}")
    if not rows:
        return ChannelFindings((), (), tuple(remarks))
    note = "8-bit nested integers, groups of 64; embedding, head and normalizations exact and not counted."
    pair_head = ("model", "planes", "rule", "against", "nats or error less", "95 %", "excludes 0")
    remarks.append(
        "The gain needs single tokens: a batch reads what any of its tokens needs.  By output rows, and with planes of "
        "floats, importance was not seen to help (see the tables of fp16 planes)."
    )
    tables = (Table(TITLE, HEAD, tuple(rows), note), Table(PAIRS, pair_head, tuple(pairs)))
    return ChannelFindings(tables, tuple(checks), tuple(remarks))


def _one(
    name: str,
    options: StudyOptions,
    train: str,
    test: str,
    rows: list[tuple[object, ...]],
    pairs: list[tuple[object, ...]],
    checks: list[Check],
) -> None:
    import torch

    from tierform.compression.checkpoints.folder import load_network, load_tokenizer
    from tierform.store.channel_model import ChannelModel, Reading

    decoder = MODELS[name] == "AutoModelForCausalLM"
    tokenizer, model = load_tokenizer(name), load_network(name, MODELS[name])
    count = 2 if options.quick else 4
    length = LENGTH if decoder else 128
    calibration, windows = (_windows(tokenizer, text, count, length) for text in (train, test))
    channels = ChannelModel(model, say=options.say)
    channels.calibrate(lambda: model(input_ids=calibration))
    if not options.quick:
        channels.weigh(lambda time: _probe(model, calibration, decoder, time), times=4)
    exact: Any = None
    if decoder:
        run: Callable[[], NDArray[np.float64]] = lambda: _losses(model, windows)  # noqa: E731
        base = run()
    else:
        with torch.no_grad():
            exact = model(input_ids=windows).last_hidden_state
        run = lambda: _feature_error(model, windows, exact)  # noqa: E731
        base = np.zeros(len(windows))
    rows.append((name, "exact", 32.0, 1, 1, float(np.exp(base.mean())) if decoder else None, 0.0, 0.0))
    found: dict[Reading, NDArray[np.float64]] = {}
    for how in readings(options.quick, decoder):
        options.say(f"{name}: {_named(how)} at {how.planes:g} planes")
        with channels.reading(how):
            each = found[how] = run()
        above = each - base
        quality = float(np.exp(each.mean())) if decoder else None
        rows.append(
            (name, _named(how), how.planes, how.together, how.batch, quality, float(above.mean()), _half_width(above))
        )
    for planes in sorted({how.planes for how in found}):
        for shared in (False, True):
            dynamic = Reading("dynamic", planes, shared=shared)
            others = [Reading("uniform", planes), Reading("static", planes, shared=shared)]
            others += [Reading("dynamic", planes)] if shared else []
            for other in (other for other in others if other in found and dynamic in found):
                less = found[other] - found[dynamic]
                half = _half_width(less)
                better = bool(less.mean() > half)
                pairs.append((name, planes, _named(dynamic), _named(other), float(less.mean()), half, better))
                what = f"{name}: {_named(dynamic)} precision by channel is better than {_named(other)} at {planes:g}"
                checks.append(Check(f"{what} planes", better, f"{less.mean():+.4f} +- {half:.4f}"))


def _named(how: Reading) -> str:
    return f"{how.rule}, shared" if how.shared else how.rule


def _probe(model: Any, windows: Any, decoder: bool, seed: int) -> Any:
    """A scalar whose gradients tell how much outputs matter.

    Of a decoder the loss of labels drawn from its own answers; else features weighed by random signs.
    """
    import torch

    drawn = torch.Generator().manual_seed(seed)
    if not decoder:
        features = model(input_ids=windows).last_hidden_state
        return (features * (torch.randint(0, 2, features.shape, generator=drawn) * 2 - 1)).sum()
    logits = model(input_ids=windows).logits[:, :-1].float().flatten(0, 1)
    labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=drawn)[:, 0]
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def _windows(tokenizer: Any, text: str, count: int, length: int) -> Any:
    import torch

    from tierform.errors import fail

    ids = tokenizer(text[: count * length * 12], add_special_tokens=False)["input_ids"]
    if len(ids) < count * length:
        fail(f"the text has {len(ids)} tokens; {count * length} are needed", key="train, test")
    return torch.tensor(ids[: count * length]).view(count, length)
