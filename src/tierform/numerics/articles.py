"""A task in the published form: a BERT pre-trained without labels, then fine-tuned: which article is a passage from?

A text with headings (`` = Title = `` alone on a line, as in the WikiText files; deeper ones are left out) is cut into
articles.  Of every ten paragraphs of an article seven are for training, one for choosing settings (`valid`) and two
for testing; a passage never crosses a paragraph.  A small BERT learns to fill in masked words of the training passages
(BERT's own rule: 15 % of the words, of which 80 % are masked, 10 % changed, 10 % left); its head for articles
is new and is what fine-tuning trains beside the adapters.

Limits: words are the file's own, those seen once are unknown; articles of fewer than `least` words are left out.
Sources: Devlin et al., BERT (NAACL 2019), for the objective.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics.tasks import TaskSet, one_cycle

if TYPE_CHECKING:
    from transformers import BertConfig


_TITLE = re.compile(r"\s*= (?!=)(.+?)(?<!=) =\s*")
_SUBTITLE = re.compile(r"\s*= =.*")
PAD, UNKNOWN, START, END, MASK = range(5)
TRAIN, VALID, TEST = "train", "valid", "test"
_PARTS = (TRAIN, TRAIN, TRAIN, TEST, TRAIN, TRAIN, VALID, TRAIN, TEST, TRAIN)


def split_articles(text: str) -> list[tuple[str, list[list[str]]]]:
    """(title, paragraphs of words) of every article of a text with headings."""
    found: list[tuple[str, list[list[str]]]] = []
    for line in text.splitlines():
        title = _TITLE.fullmatch(line)
        if title:
            found.append((title.group(1), []))
        elif found and line.strip() and not _SUBTITLE.fullmatch(line):
            found[-1][1].append(line.split())
    return found


def articles(
    text: str, *, words: int = 20, least: int = 1500, layers: int = 2, hidden: int = 128, name: str = "articles"
) -> TaskSet:
    """Which article of `text` are `words` successive words from?  TierformError with fewer than two articles."""
    if words < 4:
        fail("a passage has at least four words", key="words", value=words)
    chosen = [body for _, body in split_articles(text) if sum(map(len, body)) >= least and len(body) >= len(_PARTS)]
    if len(chosen) < 2:
        fail(
            "at least two articles are needed",
            key=name,
            value=len(chosen),
            fix=f"Headings are ' = Title = ' alone on a line; it has {least} words and ten paragraphs.",
        )
    parts: dict[str, list[tuple[int, list[str]]]] = {TRAIN: [], VALID: [], TEST: []}
    for label, body in enumerate(chosen):
        for number, paragraph in enumerate(body):
            parts[_PARTS[number % len(_PARTS)]].append((label, paragraph))
    counts = Counter(word for _, paragraph in parts[TRAIN] for word in paragraph)
    index = {word: MASK + 1 + i for i, word in enumerate(w for w, count in counts.most_common() if count > 1)}

    def passages(part: str, stride: int) -> dict[str, Tensor]:
        rows, labels = [], []
        for label, paragraph in parts[part]:
            codes = [index.get(word, UNKNOWN) for word in paragraph]
            for first in range(0, len(codes) - words + 1, stride):
                rows.append([START, *codes[first : first + words], END])
                labels.append(label)
        if not rows:
            fail("no paragraph is as long as a passage", key="words", value=words)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        return {"input_ids": torch.tensor(rows)[order], "labels": torch.tensor(labels)[order]}

    vocabulary, length = MASK + 1 + len(index), words + 2

    def config(**more: Any) -> BertConfig:
        from transformers import BertConfig

        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * hidden,
            max_position_embeddings=length,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.0,
            **more,
        )

    train = passages(TRAIN, max(1, words // 2))

    def pretrained(steps: int, seed: int, on_step: Callable[[int, float], None] | None) -> nn.Module:
        from transformers import BertForMaskedLM, BertForSequenceClassification

        encoder = fill_in(BertForMaskedLM(config()), train["input_ids"], steps, vocabulary, seed, on_step)
        model = BertForSequenceClassification(config(num_labels=len(chosen)))
        model.bert.load_state_dict(encoder.bert.state_dict(), strict=False)
        return model

    return TaskSet(
        name,
        "passages",
        train,
        passages(TEST, words),
        valid=passages(VALID, words),
        pretrained=pretrained,
        learning_rate=1e-3,
    )


def fill_in(
    model: Any,
    rows: Tensor,
    steps: int,
    vocabulary: int,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    batch: int = 64,
    learning_rate: float = 1e-3,
) -> Any:
    """Train a masked language model on rows of word numbers, with new masks in every step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = one_cycle(optimizer, learning_rate, steps)
    model.train()
    for step in range(steps):
        ids = rows[torch.randint(len(rows), (batch,), generator=generator)]
        inputs, labels = mask_words(ids, vocabulary, generator)
        asked = labels >= 0  # the output layer is the larger part of a small model: only where words are asked for
        logits = model.cls(model.bert(input_ids=inputs).last_hidden_state[asked])
        loss: Any = nn.functional.cross_entropy(logits, labels[asked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    return model.eval()


def mask_words(ids: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs with masked words, and labels (-100 where nothing is asked), by BERT's rule."""
    draw = torch.rand(ids.shape, generator=generator)
    asked = (draw < 0.15) & (ids > MASK)
    labels = torch.where(asked, ids, torch.full_like(ids, -100))
    changed = torch.randint(MASK + 1, vocabulary, ids.shape, generator=generator)
    inputs = torch.where(asked & (draw < 0.12), torch.full_like(ids, MASK), ids)
    return torch.where(asked & (draw >= 0.12) & (draw < 0.135), changed, inputs), labels


def article_file(path: Path, **sizes: int) -> TaskSet:
    """As :func:`articles`, from a file."""
    from tierform.files import read_text

    return articles(read_text(path, 256 * 2**20), name=f"articles:{path.name}", **sizes)
