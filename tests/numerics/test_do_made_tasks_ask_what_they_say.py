"""Are the tasks that are made from texts and pictures cut as they say, and does a model learn them?"""

import pytest

torch = pytest.importorskip("torch")

from tierform.errors import TierformError  # noqa: E402


def headed_text(articles=3, paragraphs=10, words=24):
    generator = torch.Generator().manual_seed(0)
    lines = []
    for number in range(articles):
        lines += [f" = Title {number} = ", " = = Part = = "]
        for _ in range(paragraphs):
            picks = torch.randint(12, (words,), generator=generator).tolist()
            lines.append(" ".join(f"w{number}{pick}" if pick < 6 else f"the{pick}" for pick in picks))
    return "\n".join(lines)


def test_passages_keep_their_paragraphs_parts_and_articles_apart():
    from tierform.numerics.articles import MASK, UNKNOWN, articles, mask_words, split_articles

    text = headed_text()
    found = split_articles(text)
    assert [(title, len(body)) for title, body in found] == [(f"Title {i}", 10) for i in range(3)]
    task = articles(text, words=8, least=50, layers=1, hidden=32)
    assert task.test_examples == 3 * 2 * 3  # two paragraphs of each article, three passages of 8 words in 24
    assert task.choosing().test_examples == 3 * 3
    assert task.train["input_ids"].shape == (3 * 7 * 5, 10)
    rows = {tuple(row) for row in task.train["input_ids"].tolist()}
    assert not rows & {tuple(row) for row in task.test["input_ids"].tolist()}
    words, labels = mask_words(task.train["input_ids"].repeat(40, 1), 50, torch.Generator().manual_seed(1))
    asked = labels >= 0
    assert float(asked.float().mean()) == pytest.approx(0.15 * 0.8, abs=0.01)  # of 10 places 8 are words
    assert float((words[asked] == MASK).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert torch.equal(words[~asked], task.train["input_ids"].repeat(40, 1)[~asked]) and UNKNOWN < MASK
    with pytest.raises(TierformError, match="two articles"):
        articles("no headings here")


def test_tilted_digits_learn_without_labels_and_are_then_adapted():
    pytest.importorskip("sklearn")
    pytest.importorskip("peft")
    from tierform.numerics.accuracy import AWARE, DIGITAL, IDEAL, UNAWARE, accuracy_table
    from tierform.numerics.adapters import Adapting
    from tierform.numerics.tasks import pretrain
    from tierform.numerics.tilted import tilted_digits

    task = tilted_digits(layers=1, hidden=32)
    assert task.test_examples == 2000
    pretrain(task, steps=10)  # a tenth of it is one step
    losses = []
    model = pretrain(task, steps=60, on_step=lambda step, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    adapting = Adapting(3, 16, 5e-3, 4, targets=("all",), train_norms=True, resample_every=1, peak_rank=6)
    kept = []
    table = accuracy_table(
        model,
        task,
        "atleus",
        seeds=1,
        instances=2,
        adapting=adapting,
        limit=64,
        fidelity="weights",
        on_run=lambda line, run: kept.append((line, run.instance)),
    )
    assert [line.name for line in table.lines] == [IDEAL, DIGITAL, UNAWARE, AWARE]
    assert kept == [(IDEAL, -1), (DIGITAL, -1), (UNAWARE, 1), (UNAWARE, 2), (AWARE, 1), (AWARE, 2)]
    assert table.line(AWARE).against == IDEAL
    assert (table.settings["measured_fidelity"], table.settings["peak_rank"]) == ("weights", 6)
    assert table.line(DIGITAL).loss == pytest.approx(table.line(IDEAL).loss, rel=0.02)  # the same product, in float
    with pytest.raises(TierformError, match="head is new"):
        accuracy_table(model, task, "atleus", adapting=None)
    with pytest.raises(TierformError, match="below those of training"):
        accuracy_table(model, task, "atleus", first_instance=10_000)
