"""Does the SmartQuant study derive what it says, at a size that a test can bear, and do its checks bite?"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions, smartquant, smartquant_device, smartquant_quality
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
    table, worst = smartquant_device.proportionality(ProportionalMemory(), "adjacent")
    assert worst < 0.01 and len(table.rows) == 16
    _, worst = smartquant_device.proportionality(ProportionalMemory(fixed_J=0.2), "adjacent")
    assert worst > 2


def test_the_headline_implies_nine_and_a_half_planes() -> None:
    rows = smartquant_device.implied_mix(ProportionalMemory(), "adjacent").rows
    means = {row[0]: row[2] for row in rows}
    assert means["DRAM energy"] == pytest.approx(16 * (1 - 0.403), abs=0.01)
    assert means["load time"] == pytest.approx(16 * (1 - 0.421), abs=0.01)
    for _, _, mean, name, share in rows:
        low = int(name.split()[0])
        assert (share * low + (100 - share) * 16) / 100 == pytest.approx(mean)


def test_a_load_adds_its_parts_and_one_latency() -> None:
    cost = smartquant_device.load_cost(ProportionalMemory(), {4: 1e6, 8: 1e6, 0: 5e6}, "adjacent")
    assert cost.load_s == pytest.approx(250e-9 + 1.5e6 / 30e9)
    assert cost.dram_J == pytest.approx(40e-12 * 1.5e6)
    assert cost.total_J == pytest.approx(88e-12 * 1.5e6)


def losses_of(perplexities: list[float], noise: float = 0.0, seed: int = 0) -> smartquant_quality.Found:
    """Windows that lie alike around the perplexity of each seed, and noise of their own."""
    rng = np.random.default_rng(seed)
    common = np.linspace(-0.3, 0.3, 20)
    return smartquant_quality.Found([np.log(one) + common + noise * rng.standard_normal(20) for one in perplexities])


def test_policies_are_told_apart_only_where_uniform_loses() -> None:
    found = {"uniform": 9.0, "static": 8.8, "activation": 8.7, "predictor": 8.9}
    for changed, holds in (({}, True), ({"predictor": 9.1}, False)):
        runs = {(5.0, kind): losses_of([one]) for kind, one in (found | changed).items()} | {
            (8.0, "uniform"): losses_of([8.61])
        }
        quality = smartquant_quality.Quality(losses_of([8.6]), runs, Table("", (), ()), [], [])
        smartquant_quality._check_better(quality)
        assert [check.holds for check in quality.checks] == [holds] and "8 bits" in quality.remarks[0]


def test_differences_are_by_window_and_their_error_counts_both_windows_and_seeds() -> None:
    difference, error, lower = smartquant_quality.against(losses_of([9.0, 9.0]), losses_of([9.09, 9.09]))
    assert difference == pytest.approx(100 * (9.0 / 9.09 - 1)) and error < 1e-9 and lower == 2
    _, error, _ = smartquant_quality.against(losses_of([9.0], noise=0.1), losses_of([9.0]))
    assert error == pytest.approx(100 * 0.1 / 20**0.5, rel=0.5)  # what the windows have in common does not count
    _, error, lower = smartquant_quality.against(losses_of([9.0, 9.2, 9.1]), losses_of([9.1, 9.1, 9.1]))
    spread = np.log([9.0 / 9.1, 9.2 / 9.1, 1.0]).std(ddof=1) / 3**0.5
    assert error == pytest.approx(100 * spread) and lower == 1


@pytest.mark.slow
def test_the_whole_study_at_a_small_size(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("transformers")
    text = ("the cat sat on the mat and the dog lay by the door. " * 200).encode()
    (tmp_path / "train.txt").write_bytes(text)
    (tmp_path / "test.txt").write_bytes(text[: len(text) // 4])
    settings = {
        "train": str(tmp_path / "train.txt"),
        "test": str(tmp_path / "test.txt"),
        "steps": "25",
        "windows": "2",
        "bits": "5,6.5",
        "seeds": "2",
    }
    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path / "cache"))
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
    assert by["static", 5.0]["least seed"] < by["static", 5.0]["perplexity"] < by["static", 5.0]["most seed"]
    pairs = {row[:3]: row for row in result.table("Importance against none, at equal bytes").rows}
    assert (6.5, "static", "uniform") not in pairs and pairs[6.5, "static", "shuffled"][4] > 0
    assert pairs[5.0, "static", "uniform"][3] < 0 and pairs[5.0, "static", "uniform"][5] == "2 of 2"
    json.dumps(result.to_dict())
    kept = sorted((tmp_path / "cache" / "store").glob("*.tfs"))
    assert len(kept) == 2
    stamps = [one.stat().st_mtime_ns for one in kept]
    kept[1].write_bytes(kept[1].read_bytes()[:-8])  # damaged: made anew
    again = STUDIES.get("smartquant")(StudyOptions(quick=True, settings=settings))
    assert again.table("Perplexity at equal bytes").rows == table.rows  # kept models are the same models
    assert kept[0].stat().st_mtime_ns == stamps[0] and kept[1].stat().st_mtime_ns != stamps[1]


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
        vocab_size=16,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        word_embed_proj_dim=32,
    )
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    text = "the cat sat on a mat and saw the dog " * 30
    (tmp_path / "t.txt").write_text(text)
    model = load_published(str(tmp_path / "opt"), text, text)
    assert model.context == 16 and model.unit == "token" and len(model.test) == 300
    settings = {
        "model": str(tmp_path / "opt"),
        "train": str(tmp_path / "t.txt"),
        "test": str(tmp_path / "t.txt"),
        "bits": "6",
        "windows": "2",
    }
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
        ({"model": "x", "seeds": "3"}, "not trained"),
        ({"memory": "ddr5-4800"}, "no plane engine"),
        ({"memory": "cxl-ddr6"}, "cxl-ddr5"),
    ):
        with pytest.raises(TierformError, match=message):
            options = StudyOptions(quick=True, settings=settings)
            options.check_settings(smartquant.SETTINGS)
            smartquant_quality.budgets_of(options)
            smartquant_quality.number(options, "steps", 5)
            smartquant_quality.texts_of(options)
            smartquant_quality._models(options)
            smartquant.run(options)


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
