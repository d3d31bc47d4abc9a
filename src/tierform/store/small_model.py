"""A small language model to measure precision on: a byte-level OPT trained here on text, kept for the next time.

Training is AdamW with one cycle of learning rate, on one thread: deterministic for a seed and a machine, whatever its
cores, and for matrices so small no slower, where others compute too several times faster.  A trained
model is kept in the user's cache folder as a plane store of its fp16 weights, under a name made of everything that
decides it (the texts, the sizes, the steps, the seed, torch's version); it is checked like any store when it is read,
and a file that cannot be read is made anew.  Limits: a model of a million weights or so, trained for minutes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tierform.errors import TierformError, fail
from tierform.files import make_folder
from tierform.store.language_model import Say, TextModel, rounded
from tierform.store.reader import Store
from tierform.store.writer import pack_tensors


@dataclass(frozen=True, slots=True)
class SmallModel:
    """What is trained and how: everything that decides the weights, beside the text."""

    width: int = 192
    layers: int = 3
    heads: int = 4
    context: int = 128
    steps: int = 600
    batch: int = 16
    seed: int = 0


@contextmanager
def single_thread() -> Iterator[None]:
    """Within this block torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_small(train: bytes, test: bytes, made: SmallModel, say: Say | None = None) -> TextModel:
    """Train a byte-level OPT on `train`; TierformError when a text is too short for the context."""
    tokens, held = _tokens(train, test, made)
    with single_thread():
        return TextModel(_train(tokens, made, say), tokens, held, made.context, "byte")


def _train(tokens: torch.Tensor, made: SmallModel, say: Say | None) -> nn.Module:
    torch.manual_seed(made.seed)
    model = _empty(made)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=made.steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(made.seed)
    model.train()
    for step in range(made.steps):
        starts = torch.randint(0, len(tokens) - made.context, (made.batch,), generator=generator)
        ids = torch.stack([tokens[start : start + made.context] for start in starts.tolist()])
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if say is not None and step % 20 == 0:
            say(f"training the small model, seed {made.seed}: step {step} of {made.steps}, loss {loss.item():.3f}")
    return rounded(model)


def trained_small(
    train: bytes, test: bytes, made: SmallModel, folder: Path | None, say: Say | None = None
) -> tuple[TextModel, bool]:
    """As :func:`train_small`, kept in `folder` (None: nowhere); whether it was found there comes with it."""
    if folder is None:
        return train_small(train, test, made, say), False
    tokens, held = _tokens(train, test, made)
    words = json.dumps({**asdict(made), "torch": torch.__version__}, sort_keys=True).encode()
    path = folder / f"opt-{hashlib.sha256(words + hashlib.sha256(train).digest()).hexdigest()[:24]}.tfs"
    model = _empty(made)
    if path.is_file():
        try:
            with Store(path) as store:
                state = {name: torch.from_numpy(store.read(name).astype(np.float32)) for name in store}
            model.load_state_dict(state)
            return TextModel(rounded(model), tokens, held, made.context, "byte"), True
        except (TierformError, RuntimeError):  # damaged, or of another transformers version: made anew
            pass
    text = train_small(train, test, made, say)
    weights = ((name, one.half().numpy()) for name, one in text.model.state_dict().items())
    try:
        make_folder(path.parent, parents=True)
        pack_tensors(weights, path)
    except TierformError as error:
        if say is not None:
            say(f"the trained model is not kept: {error}")
    return text, False


def _tokens(train: bytes, test: bytes, made: SmallModel) -> tuple[torch.Tensor, torch.Tensor]:
    if len(train) < 2 * made.context or len(test) < made.context:
        fail(
            f"the text is too short; at least {2 * made.context} bytes are needed",
            value=(len(train), len(test)),
        )
    tokens = torch.frombuffer(bytearray(train), dtype=torch.uint8).long()
    return tokens, torch.frombuffer(bytearray(test), dtype=torch.uint8).long()


def _empty(made: SmallModel) -> nn.Module:
    import transformers

    config = transformers.OPTConfig(
        vocab_size=256,
        hidden_size=made.width,
        word_embed_proj_dim=made.width,
        ffn_dim=4 * made.width,
        num_hidden_layers=made.layers,
        num_attention_heads=made.heads,
        max_position_embeddings=made.context,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    build: Callable[..., nn.Module] = transformers.OPTForCausalLM
    return build(config)
