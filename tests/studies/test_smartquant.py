"""Does the SmartQuant study derive what it says, at a size that a test can bear, and do its checks bite?"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions
from tierform.studies import smartquant as study
from tierform.studies.study import Check, StudyResult, Table


class ProportionalMemory:
    """A stated bandwidth-energy model behind the same interface: 30 GB/s, 40 pJ/B, and a fixed part if asked."""

    def __init__(self, fixed_J: float = 0.0) -> None:
        self.fixed_J = fixed_J

    def read_planes(self, weights, planes_read, planes_stored, layout="adjacent", compressed_B=None):
        size = weights * planes_read / 8
        parts = {"read": 40e-12 * size + self.fixed_J, "link": 48e-12 * size}
        return SimpleNamespace(
            latency_s=250e-9, duration_s=250e-9 + size / 30e9, energy_J=sum(parts.values()), energy_by_part_J=parts
        )


def test_a_proportional_memory_is_found_proportional_and_another_is_not() -> None:
    table, worst = study.proportionality(ProportionalMemory(), "adjacent")
    assert worst < 0.01 and len(table.rows) == 16
    _, worst = study.proportionality(ProportionalMemory(fixed_J=0.2), "adjacent")
    assert worst > 2


def test_the_headline_implies_nine_and_a_half_planes() -> None:
    rows = study.implied_mix(ProportionalMemory(), "adjacent").rows
    means = {row[0]: row[2] for row in rows}
    assert means["DRAM energy"] == pytest.approx(16 * (1 - 0.403), abs=0.01)
    assert means["load time"] == pytest.approx(16 * (1 - 0.421), abs=0.01)
    for _, _, mean, name, share in rows:
        low = int(name.split()[0])
        assert (share * low + (100 - share) * 16) / 100 == pytest.approx(mean)


def test_a_load_adds_its_parts_and_one_latency() -> None:
    cost = study.load_cost(ProportionalMemory(), {4: 1e6, 8: 1e6, 0: 5e6}, "adjacent")
    assert cost.load_s == pytest.approx(250e-9 + 1.5e6 / 30e9)
    assert cost.dram_J == pytest.approx(40e-12 * 1.5e6)
    assert cost.total_J == pytest.approx(88e-12 * 1.5e6)


def test_policies_are_told_apart_only_where_uniform_loses() -> None:
    found = {"uniform": 9.0, "static": 8.8, "activation": 8.7, "predictor": 8.9}
    for changed, holds in (({}, True), ({"predictor": 9.1}, False)):
        checks: list[Check] = []
        remarks: list[str] = []
        study._check_better([(5.0, found | changed), (8.0, {"uniform": 8.61})], 8.6, checks, remarks)
        assert [check.holds for check in checks] == [holds] and "8 bits" in remarks[0]


@pytest.mark.slow
def test_the_whole_study_at_a_small_size(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    text = ("the cat sat on the mat and the dog lay by the door. " * 200).encode()
    (tmp_path / "train.txt").write_bytes(text)
    (tmp_path / "test.txt").write_bytes(text[: len(text) // 4])
    settings = {"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt"), "steps": "25",
                "windows": "2", "bits": "5,6.5"}  # fmt: skip
    result = STUDIES.get("smartquant")(StudyOptions(quick=True, settings=settings))
    table = result.table("Perplexity at equal bytes")
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    by = {(row["policy"], round(float(row["bits a weight"]), 2)): row for row in rows}
    assert by["uniform", 5.0]["bits a weight"] == by["predictor", 5.0]["bits a weight"] == 5.0
    assert ("uniform", 6.5) not in by and by["static", 6.5]["perplexity"] < by["static", 5.0]["perplexity"]
    assert abs(by["static", 5.0]["DRAM energy saved (%)"] - 100 * (1 - 5 / 16)) < 2
    caches = {row[0]: row[2] for row in result.table("Lossless compression of the KV cache").rows}
    assert caches["made up: means, tokens correlated 0.98"] > caches["made up: independent"] + 10
    held = {check.what: check.holds for check in result.checks}
    assert held["energy and load time fall within 2 points of 1 - k/16"]
    assert held["lossless planes save 24 to 27 % of bf16 weights"]
    assert all(holds for what, holds in held.items() if what.startswith("the store reads exactly"))
    json.dumps(result.to_dict())


@pytest.mark.slow
def test_an_opt_model_from_a_folder_runs_the_same_way(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from tierform.store.language_model import load_published

    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog"]
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(
        tmp_path / "opt"
    )
    config = transformers.OPTConfig(
        vocab_size=16, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=32,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    text = "the cat sat on a mat and saw the dog " * 30
    (tmp_path / "t.txt").write_text(text)
    model = load_published(str(tmp_path / "opt"), text, text)
    assert model.context == 16 and model.unit == "token" and len(model.test) == 300
    settings = {"model": str(tmp_path / "opt"), "train": str(tmp_path / "t.txt"), "test": str(tmp_path / "t.txt"),
                "bits": "6", "windows": "2"}  # fmt: skip
    result = STUDIES.get("smartquant")(StudyOptions(quick=True, settings=settings))
    assert len(result.table("Perplexity at equal bytes").rows) == 6
    with pytest.raises(TierformError, match="cannot be loaded"):
        load_published(str(tmp_path / "none"), text, text)


def test_settings_are_checked() -> None:
    for settings, message in (
        ({"widnows": "3"}, "did you mean 'windows'"),
        ({"bits": "2"}, "4 to 12"),
        ({"steps": "0"}, "at least 1"),
        ({"train": "x"}, "belong together"),
        ({"memory": "ddr5-4800"}, "no plane engine"),
        ({"memory": "cxl-ddr6"}, "cxl-ddr5"),
    ):
        with pytest.raises(TierformError, match=message):
            options = StudyOptions(quick=True, settings=settings)
            options.check_settings(study.SETTINGS)
            study._budgets(options, (5.0,))
            study._number(options, "steps", 5)
            study._texts(options)
            study.run(options)


def test_the_command_lists_and_fails_when_a_check_does(monkeypatch, tmp_path: Path, capsys) -> None:
    def fake(options: StudyOptions) -> StudyResult:
        table = Table("a table", ("name", "value"), (("x", 1.25), ("y", None)), "a note")
        checks = (Check("water is wet", options.settings.get("wet") == "yes", "1 of 1"),)
        return StudyResult("fake", "A fake", (table,), checks)

    monkeypatch.setitem(STUDIES._loaded, "fake", fake)
    for settings, code in ((["--set", "wet=yes"], 0), ([], 1), (["--set", "wet"], 2)):
        with pytest.raises(SystemExit) as left:
            main(["reproduce", "fake", *settings, "--json", str(tmp_path / "r.json")])
        assert (left.value.code or 0) == code
    assert json.loads((tmp_path / "r.json").read_text())["tables"][0]["rows"][0] == {"name": "x", "value": 1.25}
    with pytest.raises(SystemExit):
        main(["reproduce"])
    assert "smartquant" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "smartqant"])
    assert left.value.code == 2
