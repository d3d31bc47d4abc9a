"""Reads the keys of a Hugging Face ``config.json`` (or the same keys in a library file), collecting every mistake.

A family asks for the keys it needs; each wrong value becomes one problem, and :meth:`Config.finish` raises them all at
once.  A ``config.json`` may hold keys that do not shape the model; a library file may not.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document, read_yaml

MAX_SIZE = 10**8  # no size of a published transformer comes near; larger ones are mistakes or hostile
MAX_LAYERS = 10_000
_HEAD_SUFFIXES = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForMaskedLM": "masked-lm",
    "ForConditionalGeneration": "seq2seq-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForImageClassification": "image-classification",
    "ForRegression": "regression",
    "Model": "none",
}


class Config:
    """A configuration being read."""

    def __init__(self, values: dict[str, object], file: str, document: Document | None = None) -> None:
        self.values = values
        self.file = file
        self._document = document
        self._consulted: set[str] = {"model_type", "architectures", "num_labels", "id2label"}
        self.problems: list[Problem] = []

    def problem(
        self, what: str, key: str, value: object = None, *, near: str | None = None, fix: str | None = None
    ) -> None:
        """Note a mistake; :meth:`finish` raises it with all others."""
        shown = value if isinstance(value, (str, int, float, bool)) else None
        shown = type(value).__name__ if shown is None and value is not None else shown
        self.problems.append(Problem(what, self.file, self._line(key), key, shown, nearest=near, fix=fix))

    def _line(self, key: str) -> int | None:
        return self._document.line_of(("config", key)) if self._document else None

    def fail(self, what: str, key: str, value: object, choices: list[str], fix: str) -> NoReturn:
        """Raise at once: nothing more can be read."""
        near = nearest(str(value), choices)
        raise TierformError([Problem(what, self.file, self._line(key), key, value, nearest=near, fix=fix)])

    def has(self, key: str) -> bool:
        """Whether the key stands there with a value."""
        self._consulted.add(key)
        return self.values.get(key) is not None

    def _raw(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        self._consulted.update(keys)
        return next(((key, self.values[key]) for key in keys if self.values.get(key) is not None), (keys[0], None))

    def integer(self, *keys: str, default: int | None = None, minimum: int = 1, maximum: int = MAX_SIZE) -> int:
        """A whole number under the first of `keys` that is there; without a default it must be."""
        key, value = self._raw(keys)
        if value is None:
            if default is None:
                self.problem("this key is missing", key, near=nearest(key, [str(k) for k in self.values]))
                return minimum if minimum > 0 else 1
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem("a whole number is needed", key, value)
            return max(minimum, 1)
        if not minimum <= value <= maximum:
            self.problem(f"must lie between {minimum} and {maximum}", key, value)
            return max(minimum, 1)
        return value

    def integers(self, key: str, default: tuple[int, ...] | None = None, minimum: int = 1) -> tuple[int, ...]:
        """A list of whole numbers (at least one where there is no default)."""
        key, value = self._raw((key,))
        if value is None and default is not None:
            return default
        if not isinstance(value, list) or (default is None and not value) or len(value) > MAX_LAYERS:
            self.problem("a list of whole numbers is needed", key, value)
            return default or (minimum,)
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int) or not minimum <= item <= MAX_SIZE:
                self.problem(f"every number must lie between {minimum} and {MAX_SIZE}", key, item)
                return default or (max(minimum, 1),)
        return tuple(value)

    def layers(self, *keys: str, default: int | None = None) -> int:
        """A number of layers."""
        return self.integer(*keys, default=default, maximum=MAX_LAYERS)

    def number(self, *keys: str, default: float, minimum: float = 0.0, maximum: float = 1.0) -> float:
        """A fraction."""
        key, value = self._raw(keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value <= maximum:
            self.problem(f"a number between {minimum:g} and {maximum:g} is needed", key, value)
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        key, value = self._raw((key,))
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem("true or false is needed", key, value)
            return default
        return value

    def choice(self, key: str, choices: dict[str, str], default: str) -> str:
        """A word with its meaning here."""
        key, value = self._raw((key,))
        if value is None:
            value = default
        if not isinstance(value, str) or value not in choices:
            self.problem(
                "not supported",
                key,
                value,
                near=nearest(str(value), choices),
                fix=f"Supported: {', '.join(sorted(choices))}.",
            )
            return choices[default]
        return choices[value]

    def divides(self, whole: int, part: int, key: str, of: str) -> None:
        """Note a problem where `part` (the value of `key`) does not divide `whole` (the value of `of`)."""
        if part < 1 or whole % part:
            self.problem(f"must divide {of} ({whole})", key, part)

    def head(self, allowed: tuple[str, ...], default: str) -> str:
        """The head that ``architectures`` states (its class name's ending)."""
        stated = self.values.get("architectures")
        if stated is None or stated == []:
            return default
        if not isinstance(stated, list) or not isinstance(stated[0], str):
            self.problem("a list with a class name is needed", "architectures", stated)
            return default
        name = stated[0]
        found = next((head for suffix, head in _HEAD_SUFFIXES.items() if name.endswith(suffix)), None)
        if found is None or found not in allowed:
            known = [suffix for suffix, head in _HEAD_SUFFIXES.items() if head in allowed]
            self.problem(
                "this head is not supported for the family",
                "architectures",
                name,
                near=nearest(name, known),
                fix=f"Supported endings: {', '.join(known)}.",
            )
            return default
        return found

    def labels(self) -> int:
        """Classes of a classification head: ``num_labels``, or how many ``id2label`` names; 2 unless stated."""
        names = self.values.get("id2label")
        if self.values.get("num_labels") is None and isinstance(names, dict) and names:
            return len(names)
        return self.integer("num_labels", default=2)

    def ignore(self, *keys: str) -> None:
        """Keys that a library file may state although they do not shape the model."""
        self._consulted.update(keys)

    def finish(self) -> None:
        """Raise every problem found."""
        if self.problems:
            raise TierformError(self.problems)

    def refuse_unknown(self) -> None:
        """Raise where a key stands that the family does not read."""
        known = sorted(self._consulted)
        for key in self.values:
            if key not in self._consulted:
                self.problem("unknown key", str(key), near=nearest(str(key), known))
        self.finish()


def read_library_file(path: Path) -> tuple[Config, str, str, str]:
    """(configuration, name, source key, note) of a model file of the library, or of a user in the same layout."""
    from tierform import library
    from tierform.schema import validate

    document = read_yaml(path)
    entry = validate(model_file(), document)
    library.citation(entry.source)
    values = {"model_type": entry.family, **entry.config}
    return Config(values, str(path), document), entry.name, entry.source, entry.note


@lru_cache(maxsize=1)
def model_file() -> Any:
    """The layout of a model file; made when the first one is read, since pydantic takes time to import."""
    from pydantic import Field, create_model

    from tierform.schema import FileModel

    return create_model(
        "ModelFile",
        __base__=FileModel,
        __doc__="A model of the library, or of a user in the same layout.",
        name=(str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$", description="Name of the model, as results print it.")),
        family=(str, Field(description="Family that reads the configuration: a `model_type` of `config.json`.")),
        source=(str, Field(description="Where the configuration comes from: a key of the library's sources.")),
        note=(str, Field("", description="What to know about it; changes no figure.")),
        config=(dict[str, Any], Field(description="The values of the model's `config.json`, see below.")),
    )
