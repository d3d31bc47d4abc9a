"""Is an interrupted compression taken up where it stopped, is nothing written by halves, and are figures right?"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from small_files import small_decoder  # noqa: E402

from tierform.cli.main import main  # noqa: E402
from tierform.compression.compress import (  # noqa: E402
    LayerJournal,
    Recipe,
    check_memory,
    compress_model,
    fingerprint,
)
from tierform.compression.distillation import distill, kept_layers, shallow  # noqa: E402
from tierform.compression.formats import WeightFormat  # noqa: E402
from tierform.compression.plan import read_plan, write_plan  # noqa: E402
from tierform.compression.quality import Estimate, _compare, measure, neighbours_right, window_losses  # noqa: E402
from tierform.compression.sites import anatomy, skip_sublayers  # noqa: E402
from tierform.compression.skipping import Trials, choose_skips, cosines, exchange  # noqa: E402
from tierform.compression.structured import prune_structure  # noqa: E402
from tierform.compression.text import windows_of  # noqa: E402
from tierform.errors import TierformError  # noqa: E402

GPTQ = Recipe("gptq", WeightFormat.parse("int4-g16z"))
TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_does_a_run_go_on_after_the_layers_that_are_done(tmp_path, decoder, windows):
    whole = copy.deepcopy(decoder)
    compress_model(whole, windows, GPTQ)
    mark = fingerprint(decoder, windows, GPTQ.describe())

    class Stopped(Exception):
        pass

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        compress_model(
            copy.deepcopy(decoder), windows, GPTQ, journal=LayerJournal(tmp_path / "out", mark), progress=stop
        )
    assert len(list((tmp_path / ".out.layers").glob("*.safetensors"))) == 2
    resumed = copy.deepcopy(decoder)
    journal = LayerJournal(tmp_path / "out", mark)
    compress_model(resumed, windows, GPTQ, journal=journal)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    journal.finish()
    assert not (tmp_path / ".out.layers").exists()


def test_are_layers_of_other_settings_or_text_not_taken(tmp_path, decoder, windows):
    mark = fingerprint(decoder, windows, GPTQ.describe())
    LayerJournal(tmp_path / "out", mark)
    other = fingerprint(decoder, windows + 1, GPTQ.describe())
    assert other != mark != fingerprint(small_decoder(1), windows, GPTQ.describe())
    with pytest.raises(TierformError, match="unfinished compression"):
        LayerJournal(tmp_path / "out", other)


def test_do_the_measures_of_two_distributions_come_out_as_by_hand():
    # p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL(p||q) = 1/2 ln 2 - 1/4 ln 2 = ln(2) / 4; sum of min = 3/4.
    p, q = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    same, apart, shared = _compare(q, p)
    assert same == 0.0 and apart == pytest.approx(math.log(2) / 4) and shared == pytest.approx(0.75)


def test_is_a_model_as_good_as_itself(decoder, windows):
    found = measure(decoder, windows, decoder)
    assert found.agreement.mean == 1.0 and found.divergence.mean == pytest.approx(0, abs=1e-6)
    assert found.acceptance.mean == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        losses = [float(decoder(input_ids=one[None], labels=one[None]).loss) for one in windows]
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_is_the_interval_students():
    # Values 1, 2, 3: mean 2, spread 1, t(2 degrees, 97.5 %) = 4.3027: half width 4.3027 / sqrt 3.
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert not found.excludes_zero


def test_do_neighbours_vote():
    kept = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1])
    assert neighbours_right(torch.tensor([[5.0, 0.1], [0.1, 3.0]]), torch.tensor([0, 1]), kept, labels, 1) == 1.0


def test_does_leaving_a_sublayer_out_leave_the_stream_alone(decoder, windows):
    skip_sublayers(decoder, ["model.layers.1.attention", "model.layers.1.ffn"])
    streams = []
    layer = decoder.model.layers[1]
    layer.register_forward_hook(
        lambda _m, given, out: streams.append((given[0], out[0] if isinstance(out, tuple) else out))
    )
    with torch.no_grad():
        decoder(input_ids=windows[:1])
    assert torch.equal(*streams[0])
    with pytest.raises(TierformError, match="no such sublayer"):
        skip_sublayers(decoder, ["model.layers.9.ffn"])


def test_is_the_sublayer_that_does_least_left_out_first(decoder, windows):
    with torch.no_grad():
        decoder.model.layers[2].mlp.down_proj.weight.mul_(1e-4)
    found = cosines(decoder, windows)
    assert found["model.layers.2.ffn"] == pytest.approx(1.0, abs=1e-5)
    assert choose_skips(decoder, windows, 1) == ("model.layers.2.ffn",)
    before = measure(decoder, windows).losses
    choose_skips(decoder, windows, 2, by="loss")
    assert measure(decoder, windows).losses == before  # choosing changes nothing


def test_does_a_trial_that_begins_in_the_middle_lose_what_the_whole_model_loses(decoder, windows):
    cases = (["model.layers.1.ffn"], ["model.layers.1.ffn", "model.layers.2.attention"], ["model.layers.2.ffn"], [])
    wanted = []
    for names in cases:
        without = copy.deepcopy(decoder)
        skip_sublayers(without, names)
        wanted.append(float(window_losses(without, windows).mean()))
    trials = Trials(decoder, windows)
    trials.left_out = {"model.layers.1.ffn"}
    trials.settle()
    found = []
    for names in cases:
        trials.left_out = set(names)
        found.append(trials.loss())
    trials.close()
    assert found == pytest.approx(wanted, rel=1e-6) and len(set(wanted)) == 4
    assert float(window_losses(decoder, windows).mean()) == pytest.approx(wanted[-1], rel=1e-6)


def test_does_an_exchange_find_what_a_bad_start_missed(decoder, windows):
    names = list(anatomy(decoder).sublayers)
    losses = {}
    for name in names:
        without = copy.deepcopy(decoder)
        skip_sublayers(without, [name])
        losses[name] = sum(measure(without, windows).losses)
    left = Trials(decoder, windows)
    left.left_out.add(max(losses, key=losses.__getitem__))
    exchange(left, names)
    left.close()
    assert left.left_out == {min(losses, key=losses.__getitem__)}  # of three layers' six sublayers all are tried
    assert len(choose_skips(decoder, windows, 2, by="exchange")) == 2
    worst, best = max(losses, key=losses.__getitem__), min(losses, key=losses.__getitem__)
    assert worst in choose_skips(decoder, windows, 2, begin=(worst,))
    assert choose_skips(decoder, windows, 1, by="exchange", begin=(worst,)) == (best,)
    for begun in ((worst, best), ("model.layers.9.ffn",)):
        with pytest.raises(TierformError, match="taken first"):
            choose_skips(decoder, windows, 1, begin=begun)


def test_is_a_thinned_model_a_smaller_one_of_its_kind(tmp_path, decoder, windows):
    import transformers

    with torch.no_grad():  # half of the neurons and one group of heads do nothing: taking them out costs nothing
        for layer in decoder.model.layers:
            layer.mlp.up_proj.weight[48:] = 0
            layer.self_attn.o_proj.weight[:, 32:] = 0
    before = measure(decoder, windows).losses
    sizes = prune_structure(decoder, windows, ffn=0.7, heads=0.5)
    assert sizes == {"intermediate_size": 64, "num_key_value_heads": 1, "num_attention_heads": 2}
    decoder.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in small_decoder().parameters())
    assert measure(loaded, windows).losses == pytest.approx(before, abs=0.02)


def test_does_a_student_with_fewer_layers_learn_from_its_teacher(decoder, windows):
    assert kept_layers(30, 15)[0] == 0 and kept_layers(30, 15)[-1] == 29 and len(set(kept_layers(30, 15))) == 15
    student = shallow(decoder, 2)
    assert student.config.num_hidden_layers == 2
    before = measure(student, windows, decoder).divergence.mean
    teacher = [one.clone() for one in decoder.parameters()]
    distill(decoder, student, windows, steps=30, batch=4, learning_rate=1e-3)
    assert measure(student, windows, decoder).divergence.mean < 0.7 * before
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), teacher, strict=True))


def test_does_a_plan_come_back_and_refuse_another_model(tmp_path, decoder, windows):
    plan = compress_model(decoder, windows, GPTQ, skipped=("model.layers.0.ffn",))
    assert "model.layers.0.mlp.down_proj" not in plan.matrices and len(plan.matrices) == 20
    write_plan(plan, tmp_path / "plan.json")
    back = read_plan(tmp_path / "plan.json")
    assert back == plan and back.size_B == plan.size_B
    back.check(anatomy(decoder).shapes)
    with pytest.raises(TierformError, match="another model"):
        back.check(anatomy(small_decoder(layers=2)).shapes)
    found = json.loads((tmp_path / "plan.json").read_text())
    found["matrices"]["model.layers.1.mlp.up_proj"]["formt"] = "int4"
    (tmp_path / "plan.json").write_text(json.dumps(found))
    with pytest.raises(TierformError, match="did you mean 'format'"):
        read_plan(tmp_path / "plan.json")


def test_is_too_little_memory_said_before_anything_starts():
    check_memory(10, None)
    with pytest.raises(TierformError, match=r"8\.0 GB and 1\.0 GB are free"):
        check_memory(8 * 10**9, 10**9)


def test_does_the_command_write_a_folder_that_the_command_reads(tmp_path: Path, model_folder: Path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    out = tmp_path / "out"
    report = tmp_path / "report.json"
    assert (
        run(
            "compress",
            str(model_folder),
            "--method",
            "gptq",
            "--format",
            "int4-g16z",
            "--data",
            str(text),
            "--test",
            str(text),
            "--windows",
            "4",
            "--test-windows",
            "3",
            "--length",
            "32",
            "-o",
            str(out),
            "--json",
            str(report),
        )
        == 0
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "compression-plan.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    found = json.loads(report.read_text())
    assert found["bits_per_weight"] == pytest.approx(5.25)
    assert [one["name"] for one in found["quality"]] == ["as it was", "compressed"]
    again = run(
        "compress",
        str(out),
        "--method",
        "wanda",
        "--density",
        "2:4",
        "--data",
        str(text),
        "--windows",
        "2",
        "--length",
        "32",
    )
    assert again == 0


def test_are_a_users_mistakes_said_all_at_once(tmp_path, model_folder, capsys):
    text = tmp_path / "text.txt"
    text.write_text("too short")
    assert (
        run(
            "compress",
            str(model_folder),
            "--format",
            "int9",
            "--density",
            "9:4",
            "--method",
            "rtnn",
            "--data",
            "none.txt",
        )
        == 2
    )
    said = capsys.readouterr().err
    assert said.count("error:") == 4 and "rtnn" in said and "none.txt" in said
    out = tmp_path / "out"
    assert run("compress", str(model_folder), "--format", "int4", "--data", str(text), "-o", str(out)) == 2
    assert "windows of 256 need" in capsys.readouterr().err and not out.exists()
    assert run("compress", "smollm2-135", "--format", "int4", "--data", str(text)) == 2
    assert "did you mean 'smollm2-135m'" in capsys.readouterr().err


def test_is_a_text_cut_into_whole_windows(tmp_path, model_folder):
    from tierform.compression.checkpoints.folder import load_tokenizer

    text = tmp_path / "text.txt"
    text.write_text("abc" * 40)
    found = windows_of(text, load_tokenizer(model_folder), 3, 32)
    assert found.shape == (3, 32) and found[0, :3].tolist() == [65, 66, 67]
