"""Small tasks that need no download, and the same form for a user's own data.

- ``digits``: scikit-learn's 1,797 scanned digits (8 x 8, real images), 1,297 to train and 500 to test; a small ViT.
- ``pairs``: statements about where things stand; does the second follow from the first, contradict it, or neither?
  Made by a generator, with a small BERT.
- a text file: next characters, with a small GPT-2; the last tenth (or a second file) is for testing.

Two tasks whose models are pre-trained without labels are in :mod:`tierform.numerics.tilted` (``tilted-digits``) and
:mod:`tierform.numerics.articles`; tables, longer texts and data sets of the Hub, for models with a tokenizer, in
:mod:`tierform.numerics.tables`.

Every task gives batches of keywords that a Hugging Face model takes, and counts right answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tierform.errors import MissingDependency, fail

BUILT_IN = ("digits", "pairs", "tilted-digits")


@dataclass(frozen=True)
class TaskSet:
    """A task's examples: keyword tensors by split, each with the examples along the first axis.

    `unit` names what is counted (images, pairs, characters); `build` makes a small untrained model for it, which
    `learning_rate` suits; `shifted` labels are those of the next position.  `valid` is for choosing settings.
    `pretrained(steps, seed, on_step)` makes instead a model that was trained without the task's labels, whose
    head is new: it means nothing before it is fine-tuned.
    """

    name: str
    unit: str
    train: dict[str, Tensor]
    test: dict[str, Tensor]
    build: Callable[[], nn.Module] | None = None
    shifted: bool = False
    learning_rate: float = 1e-3
    valid: dict[str, Tensor] | None = None
    pretrained: Callable[[int, int, Callable[[int, float], None] | None], nn.Module] | None = None

    @property
    def test_examples(self) -> int:
        """How many test examples there are."""
        return len(next(iter(self.test.values())))

    def choosing(self) -> TaskSet:
        """The same task measured on its validation part, for choosing settings; TierformError when it has none."""
        if self.valid is None:
            fail("the task has no validation part", key=self.name)
        return replace(self, test=self.valid)

    def batches(self, size: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """Training batches without end, shuffled by `seed`."""
        generator = torch.Generator().manual_seed(seed)
        count = len(next(iter(self.train.values())))
        if count < 1:
            fail("the task has no training examples", key=self.name)
        while True:
            order = torch.randperm(count, generator=generator)
            for start in range(0, max(1, count - size + 1), size):
                index = order[start : start + size]
                yield {key: values[index] for key, values in self.train.items()}

    def test_batches(self, size: int, limit: int = 0) -> Iterator[dict[str, Tensor]]:
        """Test batches in order, at most `limit` examples (0: all)."""
        count = len(next(iter(self.test.values())))
        count = min(count, limit) if limit else count
        for start in range(0, count, size):
            yield {key: values[start : min(start + size, count)] for key, values in self.test.items()}


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers of how many, and the mean loss."""

    right: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.total if self.total else 0.0


def evaluate(model: nn.Module, task: TaskSet, *, batch: int = 64, limit: int = 0) -> Score:
    """Right answers on the test examples; the model is left in evaluation mode."""
    model.eval()
    right, total, loss, weight = 0, 0, 0.0, 0
    with torch.no_grad():
        for inputs in task.test_batches(batch, limit):
            output = model(**inputs)
            count = len(next(iter(inputs.values())))
            loss += float(output.loss) * count
            weight += count
            if "start_positions" in inputs:
                found = output.start_logits.argmax(-1) == inputs["start_positions"]
                right += int((found & (output.end_logits.argmax(-1) == inputs["end_positions"])).sum())
                total += count
                continue
            logits, labels = output.logits, inputs["labels"]
            if task.shifted:
                logits, labels = logits[:, :-1], labels[:, 1:]
            counted = labels != -100
            right += int(((logits.argmax(-1) == labels) & counted).sum())
            total += int(counted.sum())
    if not total:
        fail("the task has no test examples", key=task.name)
    return Score(right, total, loss / weight)


def pretrain(
    task: TaskSet,
    *,
    steps: int,
    batch: int = 32,
    learning_rate: float = 0.0,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """The task's own small model, trained from scratch in float with AdamW and a one-cycle rate (0: the task's)."""
    if task.build is None and task.pretrained is None:
        fail("this task has no built-in model: give a model folder", key=task.name)
    learning_rate = learning_rate or task.learning_rate
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if task.pretrained is not None:
            return task.pretrained(steps, seed, on_step).eval()
        assert task.build is not None
        model = task.build()
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
        schedule = one_cycle(optimizer, learning_rate, steps)
        source = task.batches(batch, seed)
        for step in range(steps):
            loss = model(**next(source)).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(step, float(loss.detach()))
    model.eval()
    return model


def one_cycle(
    optimizer: torch.optim.Optimizer, learning_rate: float, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """A learning rate that rises over a tenth of the steps (three tenths of a short training) and falls to zero."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.1 if steps > 10 else 0.3
    )


def scanned_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits in an order of their own: images (1797, 1, 8, 8) in [-1, 1], and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency("scikit-learn", "the digits task", "train") from None
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(found.images).float() / 8.0 - 1.0)[order][:, None], torch.tensor(found.target).long()[order]


def digits(*, layers: int = 4, hidden: int = 64) -> TaskSet:
    """Scanned digits with a small ViT of 2 x 2 patches."""
    images, labels = scanned_digits()

    def build() -> nn.Module:
        from transformers import ViTConfig, ViTForImageClassification

        return ViTForImageClassification(
            ViTConfig(  # type: ignore[call-arg]
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=4 * hidden,
                image_size=8,
                patch_size=2,
                num_channels=1,
                num_labels=10,
                hidden_dropout_prob=0.1,
                attention_probs_dropout_prob=0.0,
            )
        )

    return TaskSet(
        "digits",
        "images",
        {"pixel_values": images[500:], "labels": labels[500:]},
        {"pixel_values": images[:500], "labels": labels[:500]},
        build,
        learning_rate=2e-3,
    )


_THINGS = ("ball", "box", "cup", "book", "lamp", "key", "shoe", "coin", "clock", "plate")
_COLOURS = ("red", "blue", "green", "black", "white", "grey")
_OPPOSITE = {"left of": "right of", "above": "below", "before": "after", "inside": "around"}
_OPPOSITE |= {value: key for key, value in _OPPOSITE.items()}


def pairs(*, examples: int = 12_000, layers: int = 4, hidden: int = 64, seed: int = 0) -> TaskSet:
    """Sentence pairs: the second follows (0), contradicts (1) or does neither (2); the last sixth is for testing."""
    generator = torch.Generator().manual_seed(seed)

    def pick(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (1,), generator=generator))]

    words = ["[PAD]", "[CLS]", "[SEP]", "the", "is", "not", *_THINGS, *_COLOURS]
    words += sorted({part for relation in _OPPOSITE for part in relation.split()})
    index = {word: number for number, word in enumerate(words)}
    length = 26
    ids = torch.zeros(examples, length, dtype=torch.long)
    kinds = torch.zeros(examples, length, dtype=torch.long)
    labels = torch.zeros(examples, dtype=torch.long)
    for row in range(examples):
        first, second = f"{pick(_COLOURS)} {pick(_THINGS)}", f"{pick(_COLOURS)} {pick(_THINGS)}"
        while second == first:
            second = f"{pick(_COLOURS)} {pick(_THINGS)}"
        relation = pick(tuple(_OPPOSITE))
        label = int(torch.randint(3, (1,), generator=generator))
        turned = bool(torch.randint(2, (1,), generator=generator))
        a, b, r = (second, first, _OPPOSITE[relation]) if turned else (first, second, relation)
        negated = False
        if label == 1:
            negated = bool(torch.randint(2, (1,), generator=generator))
            r = r if negated else _OPPOSITE[r]
        elif label == 2:
            other = pick([name for name in _THINGS if name not in (a.split()[1], b.split()[1])])
            where = int(torch.randint(3, (1,), generator=generator))
            if where == 0:
                a = f"{a.split()[0]} {other}"
            elif where == 1:
                b = f"{b.split()[0]} {other}"
            else:
                r = pick([x for x in _OPPOSITE if x not in (r, _OPPOSITE[r])])
        premise = f"the {first} is {relation} the {second}".split()
        claim = f"the {a} is {'not ' if negated else ''}{r} the {b}".split()
        tokens = ["[CLS]", *premise, "[SEP]", *claim, "[SEP]"]
        ids[row, : len(tokens)] = torch.tensor([index[word] for word in tokens])
        kinds[row, len(premise) + 2 : len(tokens)] = 1
        labels[row] = label
    inputs = {"input_ids": ids, "token_type_ids": kinds, "attention_mask": (ids != 0).long(), "labels": labels}

    def build() -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(
            BertConfig(  # type: ignore[call-arg]
                vocab_size=len(words),
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=4 * hidden,
                max_position_embeddings=length,
                num_labels=3,
                hidden_dropout_prob=0.05,
                attention_probs_dropout_prob=0.0,
            )
        )

    cut = examples - examples // 6
    return TaskSet(
        "pairs",
        "pairs",
        {key: value[:cut] for key, value in inputs.items()},
        {key: value[cut:] for key, value in inputs.items()},
        build,
        learning_rate=5e-4,
    )


def text(
    train: str, test: str = "", *, context: int = 64, layers: int = 3, hidden: int = 128, name: str = "text"
) -> TaskSet:
    """Next characters of a text with a small GPT-2; without `test`, the last tenth of `train` is for testing."""
    if not test:
        cut = len(train) - max(len(train) // 10, context)
        train, test = train[:cut], train[cut:]
    if min(len(train), len(test)) < context:
        fail("the text is too short", key=name, value=min(len(train), len(test)), fix=f"At least {context} characters.")
    alphabet = sorted({char for char in train if ord(char) < 128})
    index = {char: number + 1 for number, char in enumerate(alphabet)}

    def rows(content: str) -> dict[str, Tensor]:
        codes = torch.tensor([index.get(char, 0) for char in content])
        windows = codes[: len(codes) // context * context].view(-1, context)
        return {"input_ids": windows, "labels": windows}

    def build() -> nn.Module:
        from transformers import GPT2Config, GPT2LMHeadModel

        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(alphabet) + 1,
                n_embd=hidden,
                n_layer=layers,
                n_head=4,
                n_positions=context,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=0,
                eos_token_id=0,
                use_cache=False,
            )
        )

    return TaskSet(name, "characters", rows(train), rows(test), build, shifted=True, learning_rate=3e-3)


def text_file(train: Path, test: Path | None = None, **sizes: int) -> TaskSet:
    """As :func:`text`, from files."""
    from tierform.files import read_text

    limit = 256 * 2**20
    second = read_text(test, limit) if test is not None else ""
    return text(read_text(train, limit), second, name=train.name, **sizes)
