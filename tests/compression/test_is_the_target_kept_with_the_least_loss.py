"""Does a target choose the formats of least expected loss within its bound, and is what is predicted what is asked?"""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from small_files import small_decoder  # noqa: E402

import tierform  # noqa: E402
from tierform.cli.main import main  # noqa: E402
from tierform.compression.formats import FLOAT, WeightFormat  # noqa: E402
from tierform.compression.plan import MatrixPlan, Plan, read_plan  # noqa: E402
from tierform.compression.quality import window_losses  # noqa: E402
from tierform.compression.sensitivity import rises  # noqa: E402
from tierform.compression.sites import anatomy, skip_sublayers  # noqa: E402
from tierform.compression.target import DecodeStep, Target, choose, expected_loss, plan_of, within  # noqa: E402
from tierform.compression.target_job import _as_it_is  # noqa: E402
from tierform.compression.target_skips import kinds_of, leave_out  # noqa: E402
from tierform.errors import TierformError  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40
NARROW, MIDDLE = WeightFormat.parse("int3-g16"), WeightFormat.parse("int6-g16")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_are_targets_read_as_shares_or_quantities() -> None:
    assert Target.parse("latency=0.7") == Target("latency", 0.7, True)
    assert Target.parse("latency=12 ms") == Target("latency", 0.012, False)
    assert Target.parse("bytes=60 MB") == Target("bytes", 60e6, False)
    assert Target.parse("bits=4.25") == Target("bits", 4.25, False)
    for text, told in (("latncy=0.7", "did you mean 'latency'"), ("latency=1.7", "at most 1"), ("bits=4 ms", "plain")):
        with pytest.raises(TierformError, match=told):
            Target.parse(text)


def test_is_the_choice_that_of_trying_everything() -> None:
    # Three matrices, three formats: 27 choices. The price finds the corners of the hull; what is left is spent.
    losses = {
        "a": {NARROW: 8.0, MIDDLE: 1.0, FLOAT: 0.0},
        "b": {NARROW: 2.0, MIDDLE: 0.5, FLOAT: 0.0},
        "c": {NARROW: 0.1, MIDDLE: 0.05, FLOAT: 0.0},
    }
    costs = {name: {NARROW: -13.0, MIDDLE: -10.0, FLOAT: 0.0} for name in losses}
    for bound in (-39.0, -36.0, -33.0, -30.0, -23.0, -10.0, 0.0):
        chosen = choose(losses, costs, bound)
        found = sum(losses[name][form] for name, form in chosen.items())
        spent = sum(costs[name][form] for name, form in chosen.items())
        best = min(
            sum(losses[name][form] for name, form in zip(losses, forms, strict=True))
            for forms in itertools.product([NARROW, MIDDLE, FLOAT], repeat=3)
            if sum(costs[name][form] for name, form in zip(losses, forms, strict=True)) <= bound
        )
        assert spent <= bound and found == pytest.approx(best), bound
    with pytest.raises(TierformError, match="keeps to the bound"):
        choose(losses, costs, -40.0)


def test_is_the_expected_rise_of_the_loss_the_measured_one(decoder, windows) -> None:
    # The model's divergence from its own answers is what the Fisher matrix expects: 1/2 e F e to second order.  Its
    # diagonal leaves out that errors of tokens and of outputs go together: right to a factor, by format alike.
    from tierform.compression.compress import Recipe, compress_model
    from tierform.compression.quality import measure

    forms = [WeightFormat.parse(text) for text in ("int3-g16", "int5-g16")]
    costs = rises(decoder, windows, forms)
    expected, found = [], []
    for form in forms:
        rounded = small_decoder()
        compress_model(rounded, windows, Recipe("rtn", form, exact=("model.layers.0.*", "model.layers.2.*")))
        divergence = measure(rounded, windows, decoder).divergence
        assert divergence is not None
        found.append(divergence.mean)
        expected.append(sum(costs[site.name][form] for site in anatomy(decoder).sites if site.layer == 1))
    assert found[0] / 3 < expected[0] < 3 * found[0]
    assert expected[0] / expected[1] == pytest.approx(found[0] / found[1], rel=0.3)


def test_do_wider_formats_cost_less_and_float_nothing(decoder, windows) -> None:
    forms = [WeightFormat.parse(text) for text in ("int3-g16", "int4-g16", "int8-g16", "float")]
    before = window_losses(decoder, windows)
    found = rises(decoder, windows, forms)
    assert "lm_head" in found and len(found) == 22
    for own in found.values():
        values = [own[form] for form in forms]
        assert values == sorted(values, reverse=True) and values[-1] == 0.0
    # One bit more: steps are 7.5 / 3.5 times finer, squares of errors 4.6 times.
    whole = [sum(own[form] for own in found.values()) for form in forms]
    assert whole[0] / whole[1] == pytest.approx((7.5 / 3.5) ** 2, rel=0.3)
    assert (window_losses(decoder, windows) == before).all()  # nothing of the model was changed


def test_does_the_plan_of_a_model_as_it_is_have_all_of_its_bytes(decoder) -> None:
    plan, kinds = _as_it_is(decoder, ())
    assert plan.size_B == 2 * sum(one.numel() for one in decoder.parameters())
    assert kinds["lm_head"] == "head" and kinds["model.layers.2.mlp.down_proj"] == "down"


def _folder(tmp_path: Path, model_folder: Path, *more: str) -> tuple[int, dict]:
    text, report = tmp_path / "text.txt", tmp_path / "report.json"
    text.write_text(TEXT)
    code = run(
        "compress",
        str(model_folder),
        *("--data", str(text), "--test", str(text), "--windows", "4", "--test-windows", "3", "--length", "32"),
        *("--formats", "int3-g16,int4-g16,int8-g16,float", "--against", "int4-g16", "--json", str(report)),
        *more,
    )
    return code, json.loads(report.read_text()) if report.exists() else {}


def test_does_the_command_keep_to_bytes_and_write_what_simulate_reads(tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "out"
    code, found = _folder(
        tmp_path, model_folder, "--method", "rtn", "--target", "bytes=0.3", "--chip", "a100", "-o", str(out)
    )
    assert code == 0
    whole, uniform, chosen = found["models"]
    assert 0.28 * whole["size_B"] < chosen["size_B"] <= 0.3 * whole["size_B"]
    assert len(found["matrices_by_format"]) > 1  # not all alike
    plan = read_plan(out)
    assert plan.size_B == chosen["size_B"] and "lm_head" in plan.matrices
    # What was predicted is what simulate says of the folder that was written.
    task = tierform.Step((tierform.SequenceGroup(1, 1, 128),))
    result = tierform.simulate(str(out), task, "a100", thermal="none")
    assert result.latency_s == pytest.approx(chosen["latency_s"], rel=1e-12)
    assert uniform["expected_nats"] > 0 and chosen["quality"]["perplexity"] > 0


def test_is_a_target_of_latency_kept_as_simulate_predicts_it() -> None:
    # Llama 3.2 1B on an A100, all matrices of the layers and the head; a loss that falls with the bits, more in `down`.
    sizes = {"q": (2048, 2048), "k": (512, 2048), "v": (512, 2048), "o": (2048, 2048)}
    sizes |= {"gate": (8192, 2048), "up": (8192, 2048), "down": (2048, 8192)}
    places = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}
    kinds = {
        f"model.layers.{layer}.{places.get(part, f'mlp.{part}_proj')}": part for layer in range(16) for part in sizes
    }
    matrices = {name: MatrixPlan(sizes[part], FLOAT) for name, part in kinds.items()}
    matrices["lm_head"], kinds["lm_head"] = MatrixPlan((128256, 2048), FLOAT), "head"
    forms = [WeightFormat.parse(text) for text in ("int3-g128", "int4-g128", "int8-g128", "float")]
    losses = {
        name: {form: 0.0 if form == FLOAT else (5 if part == "down" else 1) * 4.0 ** (-form.bits) for form in forms}
        for name, part in kinds.items()
    }
    step = DecodeStep.of(Path("llama-3.2-1b"), "a100", "ideal", 1, 128)
    whole = Plan("LlamaForCausalLM", "gptq", matrices)
    target = Target.parse("latency=0.6")
    before = step.predict(whole)
    plan, found = within(step, whole, kinds, losses, target, before)
    assert 0.58 * before.latency_s < found.latency_s <= 0.6 * (1 + 1e-4) * before.latency_s
    bits = {
        part: sum(plan.matrices[n].format.bits for n, own in kinds.items() if own == part) for part in ("down", "up")
    }
    assert bits["down"] > bits["up"]  # the more delicate matrices stay wider
    alike = plan_of(whole, dict.fromkeys(kinds, forms[1]))
    alike_found = step.predict(alike)
    tighter = Target("latency", alike_found.latency_s, False)
    chosen, chosen_found = within(step, whole, kinds, losses, tighter, before)
    assert chosen_found.latency_s <= alike_found.latency_s * (1 + 1e-4)
    assert expected_loss(losses, chosen) <= expected_loss(losses, alike)


def test_are_targets_out_of_reach_and_wrong_options_refused(tmp_path: Path, model_folder: Path, capsys) -> None:
    code, _ = _folder(tmp_path, model_folder, "--target", "latency=0.01", "--chip", "a100")
    assert code == 2 and "of the model as it is" in capsys.readouterr().err
    code, _ = _folder(tmp_path, model_folder, "--target", "bits=4", "--chip", "a100", "--method", "wanda")
    assert code == 2 and "no target with this method" in capsys.readouterr().err
    code, _ = _folder(tmp_path, model_folder, "--target", "bits=4", "--chip", "a100", "--format", "int4")
    assert code == 2 and "the target chooses" in capsys.readouterr().err
    code, _ = _folder(tmp_path, model_folder, "--target", "bits=4")
    assert code == 2 and "--chip" in capsys.readouterr().err


def test_do_left_out_sublayers_and_exact_matrices_count(tmp_path: Path, model_folder: Path) -> None:
    code, found = _folder(
        tmp_path,
        model_folder,
        *("--method", "rtn", "--target", "bits=7", "--chip", "a100", "--skip", "1"),
        *("--exact", "*.q_proj", "-o", str(tmp_path / "out")),
    )
    assert code == 0 and found["models"][-1]["bits"] <= 7
    plan = read_plan(tmp_path / "out")
    assert len(plan.skipped) == 1
    assert all(one.format == FLOAT for name, one in plan.matrices.items() if name.endswith("q_proj"))


def test_are_sublayers_left_out_where_formats_alone_miss_the_target(tmp_path: Path, model_folder: Path, capsys) -> None:
    asked = ("--method", "rtn", "--target", "latency=0.7", "--chip", "a100")  # three thin layers: launches, not bytes
    code, _ = _folder(tmp_path, model_folder, *asked)
    assert code == 2 and "--leave-out" in capsys.readouterr().err
    code, found = _folder(tmp_path, model_folder, *asked, "--leave-out", "-o", str(tmp_path / "out"))
    assert code == 0
    whole, uniform, chosen = found["models"]
    assert chosen["latency_s"] <= 0.7 * whole["latency_s"] < uniform["latency_s"]
    plan = read_plan(tmp_path / "out")
    assert plan.skipped and not any(".0.attention" in name for name in plan.skipped)
    task = tierform.Step((tierform.SequenceGroup(1, 1, 128),))
    result = tierform.simulate(str(tmp_path / "out"), task, "a100", thermal="none")
    assert result.latency_s == pytest.approx(chosen["latency_s"], rel=1e-12)
    code, _ = _folder(tmp_path, model_folder, "--leave-out")
    assert code == 2 and "for a target" in capsys.readouterr().err


def test_is_the_sublayer_left_out_that_loses_least_for_what_it_saves(decoder, windows) -> None:
    kinds = kinds_of(decoder)
    losses = {}
    for name in kinds:
        without = copy.deepcopy(decoder)
        skip_sublayers(without, [name])
        losses[name] = float(window_losses(without, windows).mean() - window_losses(decoder, windows).mean())
    saves = {"attention": 1.0, "ffn": 100.0}  # an FFN that is left out saves a hundred times as much

    def reached(left_out: tuple[str, ...]) -> tuple[float, float]:
        return -sum(saves[kinds[name]] for name in left_out), -0.5

    def price(name: str) -> float:
        lost, saved = losses[name], saves[kinds[name]]
        return lost / saved if lost > 0 else lost * saved

    (chosen,) = leave_out(decoder, windows, (), kinds, reached, lambda _: None)
    assert chosen == min(kinds, key=price)
    saves["ffn"] = 1e-6
    chosen, *_ = leave_out(decoder, windows, (), kinds, reached, lambda _: None)
    assert chosen == min(kinds, key=price)
