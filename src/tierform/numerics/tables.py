"""Tasks from a user's files or from the Hub, for a model that brings its own tokenizer.

- text (``.txt``, or a Hub data set with one text column): next tokens, for decoders
- a table (``.jsonl``, ``.csv``, ``.tsv``, or a Hub data set such as ``glue/sst2``) with ``label`` and one or two texts:
  classification
- ``swag``'s columns: which of four endings; ``squad``'s columns: start and end of the answer (both tokens must match;
  examples whose answer falls outside the context window are left out)

The kind follows from the columns, so that a local file with the same columns works as the data set does.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tierform.errors import MissingDependency, Problem, TierformError, fail, first_line
from tierform.files import read_text
from tierform.numerics.tasks import TaskSet

if TYPE_CHECKING:
    from torch import nn
    from transformers import BatchEncoding, PreTrainedTokenizerBase

# Column names that hold the first and the second text, in order of preference.
_FIRST = ("sentence1", "premise", "question1", "sentence", "text", "question")
_SECOND = ("sentence2", "hypothesis", "question2", "sentence")
MAX_BYTES = 256 * 2**20
Row = dict[str, Any]


def load_rows(source: str, split: str) -> list[Row]:
    """Rows of a file (``.jsonl``, ``.csv``, ``.tsv``, ``.txt``) or of a split of a Hub data set; or TierformError."""
    path = Path(source)
    if path.suffix in (".jsonl", ".csv", ".tsv", ".txt"):
        content = read_text(path, MAX_BYTES)
        if path.suffix == ".txt":
            return [{"text": content}]
        if path.suffix == ".jsonl":
            return [
                _json_line(line, path, number) for number, line in enumerate(content.splitlines(), 1) if line.strip()
            ]
        try:
            return list(csv.DictReader(io.StringIO(content), delimiter="\t" if path.suffix == ".tsv" else ","))
        except csv.Error as error:
            fail(f"this is not a table: {error}", file=str(path))
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingDependency("datasets", f"the data set {source!r}", "train") from None
    name, _, config = source.partition("/")
    known = name in ("glue", "super_glue", "wikitext")
    try:
        found = load_dataset(name, config, split=split) if known and config else load_dataset(source, split=split)
    except Exception as error:
        reason = first_line(error)
        raise TierformError(
            [
                Problem(
                    "no such file, and the Hub's data set could not be read",
                    key="--data",
                    value=source,
                    fix=f"Built in: digits, pairs; or a .txt, .jsonl, .csv, .tsv file. The Hub says: {reason[:160]}",
                )
            ]
        ) from None
    return [dict(row) for row in found]


def _json_line(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        fail(f"malformed JSON: {str(error).split(';')[0]}", file=str(path), line=number)
    if not isinstance(row, dict):
        fail("a JSON object is needed on every line", file=str(path), line=number)
    return row


def load_model_and_task(model_name: str, data: str, test: str = "", *, context: int = 128) -> tuple[nn.Module, TaskSet]:
    """A model (a folder or a Hub id) under the head that the data's columns ask for, and the task for its tokenizer."""
    try:
        import transformers
    except ImportError:
        raise MissingDependency("transformers", f"the model {model_name!r}", "train") from None
    train = load_rows(data, "train")
    held_out = load_rows(test or data, _test_split(test or data))
    if not train or not held_out:
        fail("there are no examples", key="--data", value=data)
    kind = kind_of(train[0])
    if (test or data) == data and Path(data).suffix:
        train, held_out = _last_tenth(train)
    heads = {
        "text": "AutoModelForCausalLM",
        "choice": "AutoModelForMultipleChoice",
        "span": "AutoModelForQuestionAnswering",
        "label": "AutoModelForSequenceClassification",
    }
    labels = sorted({str(row["label"]) for row in train}) if kind == "label" else []
    options = {"num_labels": len(labels)} if labels else {"num_labels": 2} if kind == "span" else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_name)
        head = getattr(transformers, heads[kind])
        model = head.from_pretrained(model_name, ignore_mismatched_sizes=True, **options)
    except Exception as error:
        reason = first_line(error)
        fail(
            "the model could not be loaded",
            key="MODEL",
            value=model_name,
            fix=f"Give a folder of `save_pretrained` or a Hub id. transformers says: {reason[:160]}",
        )
    builder = {"text": _texts, "choice": _choices, "span": _spans, "label": _labelled}[kind]
    parts = [builder(rows, tokenizer, context, labels) for rows in (train, held_out)]
    unit = {"text": "tokens", "choice": "questions", "span": "questions", "label": "examples"}[kind]
    model.eval()
    return model, TaskSet(Path(data).name, unit, parts[0], parts[1], None, shifted=kind == "text")


def _last_tenth(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows, or the one row's text, but for the last tenth; and that tenth."""
    if len(rows) > 1:
        cut = max(1, len(rows) // 10)
        return rows[:-cut], rows[-cut:]
    content = str(rows[0].get("text", ""))
    cut = len(content) - len(content) // 10
    return [{**rows[0], "text": content[:cut]}], [{**rows[0], "text": content[cut:]}]


def kind_of(row: Row) -> str:
    """``choice``, ``span``, ``label`` or ``text``, by the columns; TierformError when none fits."""
    if "ending0" in row and "label" in row:
        return "choice"
    if "context" in row and "answers" in row:
        return "span"
    if "label" in row and any(name in row for name in _FIRST):
        return "label"
    if "text" in row:
        return "text"
    return fail(
        "the columns fit no task",
        key="--data",
        value=sorted(map(str, row)),
        fix="A label with one or two texts, swag's or squad's columns, or a text column.",
    )


def _test_split(source: str) -> str:
    if source.endswith("mnli"):
        return "validation_matched"
    return "test" if source.startswith("wikitext") else "validation"


def _tensors(encoded: BatchEncoding) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value) for key, value in encoded.items() if key != "overflow_to_sample_mapping"}


def _labelled(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, context: int, labels: list[str]
) -> dict[str, torch.Tensor]:
    first = next(name for name in _FIRST if name in rows[0])
    second = next((name for name in _SECOND if name in rows[0] and name != first), None)
    texts = [str(row[first]) for row in rows]
    others = [str(row[second]) for row in rows] if second else None
    encoded = tokenizer(texts, others, truncation=True, max_length=context, padding="max_length")
    unknown = {str(row["label"]) for row in rows} - set(labels)
    if unknown:
        fail("the test data has labels that the training data lacks", key="label", value=sorted(unknown))
    return {**_tensors(encoded), "labels": torch.tensor([labels.index(str(row["label"])) for row in rows])}


def _texts(rows: list[Row], tokenizer: PreTrainedTokenizerBase, context: int, _: list[str]) -> dict[str, torch.Tensor]:
    codes = torch.tensor(tokenizer("\n".join(str(row["text"]) for row in rows))["input_ids"])
    if len(codes) < context:
        fail("the text is too short", key="--data", value=len(codes), fix=f"At least {context} tokens are needed.")
    windows = codes[: len(codes) // context * context].view(-1, context)
    return {"input_ids": windows, "labels": windows}


def _choices(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, context: int, _: list[str]
) -> dict[str, torch.Tensor]:
    endings = sorted(name for name in rows[0] if name.startswith("ending"))
    firsts = [str(row["sent1"]) for row in rows for _ in endings]
    seconds = [f"{row.get('sent2', '')} {row[name]}".strip() for row in rows for name in endings]
    encoded = tokenizer(firsts, seconds, truncation=True, max_length=context, padding="max_length")
    shaped = {key: value.view(len(rows), len(endings), -1) for key, value in _tensors(encoded).items()}
    return {**shaped, "labels": torch.tensor([int(row["label"]) for row in rows])}


def _spans(rows: list[Row], tokenizer: PreTrainedTokenizerBase, context: int, _: list[str]) -> dict[str, torch.Tensor]:
    encoded = tokenizer(
        [str(row["question"]) for row in rows],
        [str(row["context"]) for row in rows],
        truncation="only_second",
        max_length=context,
        padding="max_length",
        return_offsets_mapping=True,
    )
    starts, ends, kept = [], [], []
    for number, row in enumerate(rows):
        answers = row["answers"] if isinstance(row["answers"], dict) else json.loads(row["answers"])
        begin = int(answers["answer_start"][0])
        finish = begin + len(answers["text"][0])
        inside = [
            token
            for token, ((a, b), part) in enumerate(
                zip(encoded["offset_mapping"][number], encoded.sequence_ids(number), strict=True)
            )
            if part == 1 and a < finish and b > begin
        ]
        if inside:
            kept.append(number)
            starts.append(inside[0])
            ends.append(inside[-1])
    if not kept:
        fail("no answer lies within the context window", key="context", value=context)
    inputs = {key: torch.tensor(value)[kept] for key, value in encoded.items() if key != "offset_mapping"}
    return {**inputs, "start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
