"""Does the job say what it measured, do policies act as they say, and are mistakes told all at once?"""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from tierform.cli.technique_options import read_policy  # noqa: E402
from tierform.decoding.drafts import draft_problems, read_draft  # noqa: E402
from tierform.decoding.foreseen import best_of, foresee  # noqa: E402
from tierform.decoding.heads import attention_dropped  # noqa: E402
from tierform.decoding.jobs import DecodeJob, run_decode  # noqa: E402
from tierform.decoding.loop import Sampling, generate  # noqa: E402
from tierform.decoding.measure import PassTimes, acceptance_of, chances_of, pass_times  # noqa: E402
from tierform.decoding.policies import NarrowCache, choose_heads, mask_of, perplexities, rounded  # noqa: E402
from tierform.errors import TierformError  # noqa: E402
from tierform.workload.kv_policy import KVPolicy  # noqa: E402


@pytest.fixture
def run(capsys):
    """Exit code and all that a command prints."""
    from tierform.cli.main import main

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out + told.err

    return call


# -- predictions ---------------------------------------------------------------------------------------------------
def test_is_a_long_text_foreseen_by_the_formula_and_the_best_its_largest():
    """1 + a + a² tokens a step of two drafted ones (Leviathan et al.), whose ends fade in a long text."""
    import numpy as np

    times = PassTimes((1.0, 1.1, 1.2, 1.3), 0.2, (0.0, 0.0, 0.0, 0.0))

    def text(chance, places=2000):
        return [[np.full(8, chance)] * places]

    found = foresee(text(0.5), times, 2)
    assert found.per_s == pytest.approx((1 + 0.5 + 0.25) / (0.4 + 1.2), rel=1e-3)
    assert found.acceptance == pytest.approx(0.5, rel=1e-2)
    assert best_of(text(0.9), times) == 3 and best_of(text(0.05), times) == 1


def test_are_steps_of_a_greedy_text_walked_one_by_one():
    """By hand, two drafted tokens: place 1 (both right), 4 (nothing found), 5 (the first wrong), 6 (the last: none).

    Seven tokens, the first with the prompt.  Passes over 3, 1, 2 and 1 tokens: one may still be drafted at place 5.
    """
    import numpy as np

    times = PassTimes((1.0, 1.5, 2.25), 0.25, (0.0, 0.0, 0.0))
    unknown = np.zeros(0)
    places = [unknown, np.array([1.0, 1.0]), unknown, unknown, unknown, np.array([0.0, np.nan]), np.array([1.0])]
    found = foresee([places], times, 2)
    assert found.seconds == pytest.approx((2.25 + 0.5) + 1.0 + (1.5 + 0.25) + 1.0)
    assert (found.tokens, found.tried, found.accepted) == (6, 3, 2)
    # all of a step's tokens accepted, and more drafted in the next step: that draft reads two tokens first
    behind = PassTimes((1.0, 1.5, 2.25), 0.25, (0.0, 0.0, 0.0), 0.125)
    right = [np.array([1.0])] * 7  # places 1, 3, 5 with one drafted token each
    assert foresee([right], behind, 1).seconds == pytest.approx(3 * (1.5 + 0.25) + 2 * 0.125)


@pytest.mark.parametrize("name", ["lookup", "planes:7"])
def test_are_counted_steps_foreseen_for_greedy_texts(target, other, name):
    """At a second a pass over any number of tokens, and none a draft, the time is the number of steps: exactly."""
    draft = read_draft(name, target, "")
    ones = PassTimes((1.0,) * 5, 0.0, (0.0,) * 5)
    prompts = [[number % 24, (7 * number) % 24, 3, number % 24] for number in range(12)]
    texts = [(prompt, generate(target, prompt, 24).tokens) for prompt in prompts]
    chances = chances_of(target, draft, texts, Sampling())
    for count in (1, 2, 4):
        counted = [generate(target, prompt, 24, draft=draft, count=count) for prompt in prompts]
        found = foresee(chances, ones, count)
        assert found.seconds == pytest.approx(sum(one.steps for one in counted))
        assert found.tried == pytest.approx(sum(sum(one.tried) for one in counted))
        assert found.accepted == pytest.approx(sum(sum(one.accepted) for one in counted))


def test_is_acceptance_read_off_logits_what_the_loop_counts(target, other):
    sampling, draft = Sampling(1.0), read_draft("planes:7", target, "")
    texts, tried, accepted = [], 0, 0
    import numpy as np

    for number in range(60):
        prompt = [number % 24, (7 * number) % 24, 3]
        one = generate(
            target, prompt, 16, draft=draft, count=3, sampling=sampling, random=np.random.default_rng(number)
        )
        texts.append((prompt, one.tokens))
        tried, accepted = tried + sum(one.tried), accepted + sum(one.accepted)
    predicted = acceptance_of(draft, chances_of(target, draft, texts, sampling))[0]
    assert accepted / tried == pytest.approx(predicted, abs=0.06)  # about 600 trials: 3 standard errors


def test_are_passes_timed(target, other):
    found = pass_times(target, read_draft("lookup", target, ""), list(range(20)), Sampling(), most=3)
    assert len(found.verify_s) == 4 and min(found.verify_s) > 0 and found.draft_s == 0


# -- policies ------------------------------------------------------------------------------------------------------
def test_does_a_mask_let_a_token_see_sinks_and_window_alone():
    seen = mask_of(8, KVPolicy(window=3, sinks=2), torch.float32)[0, 0] == 0
    assert seen[7].tolist() == [True, True, False, False, False, True, True, True]
    assert seen[2].tolist() == [True, True, True, False, False, False, False, False]


def test_is_a_masked_text_what_a_cache_that_drops_tokens_gives(other):
    # One layer sees only what the mask shows: the last token's logits are those of the sequence of kept tokens, with
    # the positions that they had.
    model, ids = other, torch.arange(12) % 24
    policy = KVPolicy(window=4, sinks=2)
    with torch.inference_mode():
        masked = model(input_ids=ids[None], attention_mask=mask_of(12, policy, torch.float32)).logits[0, -1]
        kept = torch.tensor([0, 1, 8, 9, 10, 11])
        alone = model(input_ids=ids[kept][None], position_ids=kept[None]).logits[0, -1]
    assert torch.allclose(masked, alone, atol=1e-4)


def test_is_a_wide_policy_exact_and_a_narrow_cache_nearer_with_more_bits(target):
    windows = torch.randint(0, 24, (2, 40), generator=torch.Generator().manual_seed(0))
    whole = perplexities(target, windows)
    assert perplexities(target, windows, KVPolicy(window=40)) == pytest.approx(whole, rel=1e-5)
    errors = [abs(perplexities(target, windows, narrow=NarrowCache(bits, 8)) / whole - 1) for bits in (2, 4, 8)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def test_are_rounded_values_within_half_a_step_along_their_dimension():
    values = torch.randn(1, 2, 30, 8)
    for dimension, group in ((-2, 16), (-1, 8)):
        moved = values.transpose(dimension, -1)
        span = max(float(part.max() - part.min()) for row in moved.flatten(0, -2) for part in row.split(group))
        assert float((rounded(values, 4, group, dimension) - values).abs().max()) <= span / 15 / 2 + 1e-5


# -- the command ---------------------------------------------------------------------------------------------------
def test_does_the_command_decode_and_write_what_simulate_reads(run, folder, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out.json"
    prompts.write_text("abcabc\nbcdbcd\ncdecde\n")
    code, told = run("decode", folder, "--draft", "skip:1-2", "--prompts", prompts, "--new", 10, "--json", out)
    assert code == 0, told
    found = json.loads(out.read_text())
    assert found["equal"] is True and found["generated"] == 30
    assert found["by_tokens"] and found["acceptance"]["counted"]
    assert "speed-up" in told and "accepted by position" in told
    code, told = run(
        "simulate", "llama-3.1-8b", "--chip", "a100", "--decode", 16, "--draft", "skip:21-31", "--acceptance", out
    )
    assert code == 0 and "drafts by skip" in told


def test_does_the_command_measure_policies(run, folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 40)
    code, told = run(
        "decode",
        folder,
        "--test",
        text,
        "--windows",
        2,
        "--length",
        64,
        "--policy",
        "window:16+sinks:4",
        "--cache-bits",
        4,
    )
    assert code == 0, told
    assert "whole cache" in told and "int4 cache" in told


def test_are_all_mistakes_told_at_once(run, folder, tmp_path):
    code, told = run("decode", folder, "--draft", "plane:9", "--tokens", 0, "--policy", "windw:3")
    assert code == 2
    for part in ("did you mean 'planes'", "--tokens", "did you mean 'window'", "--prompts"):
        assert part in told, part
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("abc\n")
    code, told = run("decode", folder, "--prompts", prompts, "--new", 400)
    assert code == 2 and "256" in told
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 40)
    code, told = run("decode", folder, "--test", text, "--length", 64, "--policy", "window:100")
    assert code == 2 and "every token" in told


@pytest.mark.parametrize("part", ["window:0", "heavy:0", "budget:0"])
def test_is_a_policy_that_keeps_nothing_refused(part):
    with pytest.raises(TierformError, match="keeps no token"):
        read_policy(part)
    assert read_policy("window:1+sinks:0") == {"window": 1, "sinks": 0}


def test_is_a_draft_that_is_no_model_told_before_the_target_is_loaded(tmp_path):
    (one,) = draft_problems(f"model:{tmp_path / 'none'}", 4, tmp_path)
    assert one.key == "--draft" and "no such model" in one.what
    (one,) = draft_problems(f"model:{tmp_path}", 4, tmp_path)
    assert "no config.json" in one.what


def test_is_a_draft_with_another_tokenizer_refused(folder, tmp_path):
    import shutil

    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    words = json.loads((twin / "tokenizer.json").read_text())
    words["model"]["vocab"] = {("ä" if key == "a" else key): value for key, value in words["model"]["vocab"].items()}
    (twin / "tokenizer.json").write_text(json.dumps(words))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("abc\n")
    with pytest.raises(TierformError, match="another tokenizer"):
        run_decode(DecodeJob(str(folder), f"model:{twin}", prompts=prompts, new=4))
    same = run_decode(DecodeJob(str(folder), f"model:{folder}", tokens=2, prompts=prompts, new=6))
    assert same.equal is True and same.counted == [1.0, 1.0]


# -- heads that keep every token -------------------------------------------------------------------------------------
def test_do_whole_heads_see_every_token_and_the_others_their_window(target):
    windows, policy = (
        torch.randint(0, 24, (2, 40), generator=torch.Generator().manual_seed(0)),
        KVPolicy(8, 2, whole=0.5),
    )
    whole, narrow = perplexities(target, windows), perplexities(target, windows, KVPolicy(8, 2))
    every = torch.ones(3, 2, dtype=torch.bool)
    assert perplexities(target, windows, policy, whole=every) == pytest.approx(whole, rel=1e-5)
    assert perplexities(target, windows, policy, whole=~every) == pytest.approx(narrow, rel=1e-5)
    some = every.clone()
    some[1:, 1] = False
    mixed = perplexities(target, windows, policy, whole=some)
    assert mixed != pytest.approx(whole, rel=1e-6) and mixed != pytest.approx(narrow, rel=1e-6)
    assert perplexities(target, windows) == pytest.approx(whole)  # nothing is left behind on the model


def test_are_the_heads_chosen_that_look_at_what_would_be_dropped(target):
    windows, policy = (
        torch.randint(0, 24, (1, 24), generator=torch.Generator().manual_seed(1)),
        KVPolicy(6, 2, whole=0.5),
    )
    seen = mask_of(24, policy, torch.float32)[0, 0] == 0
    dropped = attention_dropped(target, windows, seen)
    # By hand from the model's own probabilities: two heads of queries share a head of keys.
    target.set_attn_implementation("eager")
    with torch.inference_mode():
        chances = target(input_ids=windows, output_attentions=True).attentions
    target.set_attn_implementation("sdpa")
    far = torch.ones(24, 24).tril().bool() & ~seen
    for layer in range(3):
        for head in range(2):
            both = chances[layer][0, 2 * head : 2 * head + 2]
            expected = sum(float((one * far)[far.any(-1)].sum(-1).mean()) for one in both)
            assert float(dropped[layer, head]) == pytest.approx(expected, rel=1e-4)
    chosen = choose_heads(target, windows, policy)
    assert int(chosen.sum()) == 3 and float(dropped[chosen].min()) >= float(dropped[~chosen].max())


def test_what_do_whole_heads_keep_and_need(run, folder, tmp_path):
    # Half of the heads keep 100 tokens, the others 10: 55 in the mean.
    assert KVPolicy(8, 2, whole=0.5).kept(100) == 55 and KVPolicy(8, 2, whole=0.5).kept(10) == 10
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 40)
    words = ("decode", folder, "--test", text, "--windows", 1, "--length", 64, "--policy", "window:8+sinks:2+whole:0.5")
    code, told = run(*words)
    assert code == 2 and "--learn" in told
    code, told = run(*words, "--learn", text)
    assert code == 0 and "policy" in told, told
    code, told = run(*words[:-1], "window:8+whole:2.5")
    assert code == 2 and "share" in told
    with pytest.raises(TierformError, match="window"):
        KVPolicy(whole=0.5)
