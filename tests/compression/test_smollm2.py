"""Does a real pre-trained model load as it should, and do the methods keep their order on it?

The text is Python's own language reference.  Where the package index cannot be reached the tests say so and are
skipped.
"""

from __future__ import annotations

from pydoc_data.topics import topics

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tierform.compression.compress import Recipe, compress_model  # noqa: E402
from tierform.compression.formats import WeightFormat  # noqa: E402
from tierform.compression.quality import window_losses  # noqa: E402

pytestmark = pytest.mark.slow
LATER = ("model.layers.[4-9].*", "model.layers.[12][0-9].*")


@pytest.fixture(scope="module")
def texts(smollm2):
    _, tokenizer = smollm2
    text = "\n".join(topics[key] for key in sorted(topics))
    ids = tokenizer(text[:60_000])["input_ids"]
    whole = torch.tensor(ids[: 8 * 192]).view(8, 192)
    return whole[:6], whole[6:]


def test_is_smollm2_what_it_should_be(smollm2, texts):
    model, tokenizer = smollm2
    assert sum(one.numel() for one in model.parameters()) == 134_515_008
    ids = tokenizer("Gravity is 9.81 m/s", add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([one]) for one in ids]
    assert "".join(pieces) == "Gravity is 9.81 m/s" and pieces[-7:-3] == ["9", ".", "8", "1"]  # digits stand alone
    # Next tokens of English prose: far better than any guess (ln 49152 = 10.8 nats).
    assert 2.0 < window_losses(model, texts[1]).mean() < 4.0


def test_does_gptq_keep_more_than_rounding_on_smollm2(smollm2, texts):
    model, _ = smollm2
    before = {name: one.clone() for name, one in model.state_dict().items()}
    whole = window_losses(model, texts[1])
    lost = {}
    for method in ("rtn", "gptq"):
        compress_model(model, texts[0], Recipe(method, WeightFormat.parse("int3-g64z"), exact=LATER))
        lost[method] = float(np.mean(window_losses(model, texts[1]) - whole))
        model.load_state_dict(before)
    assert lost["rtn"] > 0.05, "three bits must cost something, or nothing is compared"
    assert lost["gptq"] < 0.7 * lost["rtn"]
