"""What do prefill and decoding cost on one GPU: every operation, byte, picosecond and picojoule, derived by hand.

The toy model and the toy GPU are described in toy.py.  Each row: how often, operations, bytes read, bytes written.
"""

from __future__ import annotations

import pytest
from toy import INFERENCE, Row, Table, check, run, seconds, total

# Prefill: 2 sequences of 3 tokens = 6 rows.  A row of 8 values is 16 bytes, six are 96; a matrix of 8 x 8 is 128 bytes.
PREFILL: Table = {
    # Six rows of the table of words are read and written; three of the table of positions.
    "embedding/embedding.word.lookup": Row(1, 0, 96, 96),
    "embedding/embedding.position.lookup": Row(1, 0, 48, 48),
    # 48 sums of 96 bytes of words and 48 of positions.
    "embedding/embedding.position_add": Row(1, 48, 96 + 48, 96),
    # LayerNorm takes 8 operations for each of 48 values; gain and shift are 8 values each.
    "layer/attention_norm": Row(2, 8 * 48, 96 + 16 + 16, 96),
    # q, k, v: 6 x 8 results of 8 multiply-adds (2 operations); input, matrix and bias are read.
    "layer/attention.q": Row(2, 2 * 6 * 8 * 8, 96 + 128 + 16, 96, True),
    "layer/attention.k": Row(2, 2 * 6 * 8 * 8, 96 + 128 + 16, 96, True),
    "layer/attention.v": Row(2, 2 * 6 * 8 * 8, 96 + 128 + 16, 96, True),
    # 2 sequences x 2 heads: 3 x 3 scores of 4 multiply-adds each; the 36 scores are 72 bytes.
    "layer/attention.scores": Row(2, 2 * 2 * 2 * 3 * 3 * 4, 96 + 96, 72, True),
    # scale, mask, maximum, subtract, exponential, sum, divide: 7 for each of 36 scores.
    "layer/attention.softmax": Row(2, 7 * 36, 72, 72),
    "layer/attention.context": Row(2, 2 * 2 * 2 * 3 * 4 * 3, 72 + 96, 96, True),
    "layer/attention.o": Row(2, 2 * 6 * 8 * 8, 96 + 128 + 16, 96, True),
    "layer/attention.residual": Row(2, 48, 96 + 96, 96),
    "layer/ffn_norm": Row(2, 8 * 48, 96 + 16 + 16, 96),
    # up: 8 x 16 weights are 256 bytes, its bias 32, its six rows of 16 values 192.
    "layer/ffn.up": Row(2, 2 * 6 * 16 * 8, 96 + 256 + 32, 192, True),
    "layer/ffn.activation": Row(2, 96, 192, 192),
    "layer/ffn.down": Row(2, 2 * 6 * 8 * 16, 192 + 256 + 16, 96, True),
    "layer/ffn.residual": Row(2, 48, 96 + 96, 96),
    "head/head.norm": Row(1, 8 * 48, 96 + 16 + 16, 96),
    # Logits of the last token of each sequence: 2 rows; the table of ten words (160 bytes) is the matrix.
    "head/head.logits": Row(1, 2 * 2 * 10 * 8, 32 + 160, 40, True),
}


def decoding(keys: int) -> Table:
    """A step in which two sequences, one new token each, see so many keys: two rows of 16 bytes, 32 in all.

    The cache of keys of a layer holds 2 sequences x `keys` x 8 values = 32 bytes a key, that of values as many; the 2
    sequences x 2 heads have 4 x `keys` scores of 2 bytes.
    """
    return {
        "embedding/embedding.word.lookup": Row(1, 0, 32, 32),
        "embedding/embedding.position.lookup": Row(1, 0, 16, 16),
        "embedding/embedding.position_add": Row(1, 16, 32 + 16, 32),
        "layer/attention_norm": Row(2, 8 * 16, 32 + 32, 32),
        "layer/attention.q": Row(2, 2 * 2 * 64, 32 + 128 + 16, 32, True),
        "layer/attention.k": Row(2, 2 * 2 * 64, 32 + 128 + 16, 32, True),
        "layer/attention.v": Row(2, 2 * 2 * 64, 32 + 128 + 16, 32, True),
        "layer/attention.scores": Row(2, 2 * 4 * keys * 4, 32 + 32 * keys, 8 * keys, True),
        "layer/attention.softmax": Row(2, 7 * 4 * keys, 8 * keys, 8 * keys),
        "layer/attention.context": Row(2, 2 * 4 * 4 * keys, 8 * keys + 32 * keys, 32, True),
        "layer/attention.o": Row(2, 2 * 2 * 64, 32 + 128 + 16, 32, True),
        "layer/attention.residual": Row(2, 16, 64, 32),
        "layer/ffn_norm": Row(2, 8 * 16, 32 + 32, 32),
        "layer/ffn.up": Row(2, 2 * 2 * 128, 32 + 256 + 32, 64, True),
        "layer/ffn.activation": Row(2, 32, 64, 64),
        "layer/ffn.down": Row(2, 2 * 2 * 128, 64 + 256 + 16, 32, True),
        "layer/ffn.residual": Row(2, 16, 64, 32),
        "head/head.norm": Row(1, 8 * 16, 32 + 32, 32),
        "head/head.logits": Row(1, 2 * 2 * 10 * 8, 32 + 160, 40, True),
    }


def test_what_does_every_operator_of_prefill_take() -> None:
    check(run(INFERENCE), "prefill", PREFILL)


@pytest.mark.parametrize("keys", [4, 5])
def test_what_does_every_operator_of_a_decode_step_take(keys: int) -> None:
    # Three tokens were read; the first new one is the fourth key, the second one the fifth.
    check(run(INFERENCE), f"decode[{keys}]", decoding(keys))


def test_how_long_do_the_stages_take() -> None:
    result = run(INFERENCE)
    # Kernels follow each other.  Embedding 1,920 + 960 + 2,400; a layer (x 2) norms 2 x 3,840, q, k, v, o 4 x 3,360,
    # scores and context 2 x 2,640, softmax 2,520, residuals 2 x 2,880, up 5,760, ReLU 3,840, down 5,600; head 3,840 +
    # 2,320.
    layer = 2 * 3840 + 4 * 3360 + 2 * 2640 + 2520 + 2 * 2880 + 5760 + 3840 + 5600
    assert seconds(result, "prefill") == pytest.approx(5280 + 2 * layer + 6160)
    assert layer == 49880
    # One token: embedding 640 + 320 + 800; norms 1,280, q, k, v, o 2,080, residuals 960, up 3,840, ReLU 1,280, down
    # 3,680; with 4 keys scores and context 1,920 each and softmax 1,120, with 5 2,320 and 1,400; head 1,280 + 2,320.
    rest = 2 * 1280 + 4 * 2080 + 2 * 960 + 3840 + 1280 + 3680
    assert seconds(result, "decode[4]") == pytest.approx(1760 + 2 * (rest + 2 * 1920 + 1120) + 3600)
    assert seconds(result, "decode[5]") == pytest.approx(1760 + 2 * (rest + 2 * 2320 + 1400) + 3600)
    assert result.latency_s * 1e12 == pytest.approx(111200 + 58480 + 60640)
    assert result.throughput["time_to_first_token_s"] * 1e12 == pytest.approx(111200)
    assert result.throughput["time_per_output_token_s"] * 1e12 == pytest.approx((58480 + 60640) / 2)
    assert result.throughput["prefill_tokens_per_s"] == pytest.approx(6 / 111.2e-9)
    assert result.throughput["decode_tokens_per_s"] == pytest.approx(2 * 2 / (58480 + 60640) * 1e12)
    assert result.busy_s_by_resource == pytest.approx({"gpu": 230.32e-9})
    assert result.utilization == pytest.approx({"gpu": 1.0})


def test_which_bytes_cross_to_memory() -> None:
    result = run(INFERENCE)
    tables = (PREFILL, decoding(4), decoding(5))
    assert result.memory_read_B == sum(total(table, "read_B") for table in tables)
    assert result.memory_write_B == sum(total(table, "write_B") for table in tables)
    # Written: the embedding 240; a layer ten times 96, scores twice 72, up and ReLU 192 each; the head 96 + 40.
    assert total(PREFILL, "write_B") == 240 + 2 * (96 * 10 + 72 * 2 + 192 * 2) + 136


def test_where_does_the_energy_go() -> None:
    result = run(INFERENCE)
    # Arithmetic: products 1 pJ, all else 2 pJ.  Prefill: a layer has 4 x 768 + 2 x 288 + 2 x 1,536 = 6,720 operations
    # of products and 2 x 384 + 252 + 2 x 48 + 96 = 1,212 others; the embedding 48 others, the head 320 and 384.
    prefill = (2 * 6720 + 320) + 2 * (2 * 1212 + 48 + 384)
    # A step: 4 x 256 + 2 x 32 k + 2 x 512 of products, 2 x 128 + 28 k + 2 x 16 + 32 others, 16 and 320 + 128.
    four = (2 * (2048 + 64 * 4) + 320) + 2 * (2 * (320 + 28 * 4) + 16 + 128)
    five = (2 * (2048 + 64 * 5) + 320) + 2 * (2 * (320 + 28 * 5) + 16 + 128)
    arithmetic = prefill + four + five
    assert (prefill, four, five) == (19472, 6944, 7184)
    # Memory: 10 pJ for each byte of the tables; idle: 1 W for 230,320 ps.
    memory = 10 * (15744 + 5736)
    parts = {name: energy * 1e12 for name, energy in result.energy_J_by_part.items()}
    assert parts == pytest.approx(
        {"gpu: arithmetic": arithmetic, "gpu: memory": memory, "gpu: idle and leakage": 230320}
    )
    assert result.energy_J * 1e12 == pytest.approx(33600 + 214800 + 230320)
    assert result.energy_J_by_component == pytest.approx({"gpu": 478720e-12})
    assert result.energy_J_by_tile == pytest.approx([248400e-12])
    classes = {name: energy * 1e12 for name, energy in result.energy_J_by_operator.items()}
    assert classes == pytest.approx(
        {
            # look-ups: bytes alone
            "embedding": 10 * ((192 + 96) + 2 * (64 + 32)),
            # sums: prefill 2,496 and four residuals of 2,976; a step 832 and four of 992
            "elementwise": 2496 + 4 * 2976 + 2 * (832 + 4 * 992),
            # prefill five of 2 x 384 + 10 x 224, a step five of 2 x 128 + 10 x 96
            "normalization": 5 * 3008 + 2 * 5 * 1216,
            # prefill two of 2 x 252 + 10 x 144, a step two of 2 x 28 k + 10 x 16 k
            "softmax": 2 * 1944 + 2 * (216 * 4) + 2 * (216 * 5),
            "activation": 2 * 4032 + 2 * 2 * 1344,
            # prefill layers: 4 x 4,128 + 2 x 2,928 + 7,296 + 7,136, head 2,640; steps 4 x 2,336, 4,352, 4,192 and
            # twice 64 x 4 x ... : 2,048 with 4 keys, 2,480 with 5; head 2,640
            "matmul": 2 * (4 * 4128 + 2 * 2928 + 7296 + 7136)
            + 2640
            + 2 * (2 * (4 * 2336 + 4352 + 4192) + 2640)
            + 2 * 2 * (2048 + 2480),
            "idle and leakage": 230320,
        }
    )
    assert [round(stage.energy_J * 1e12) for stage in result.stages] == [
        19472 + 10 * 10104 + 111200,
        6944 + 10 * 5592 + 58480,
        7184 + 10 * 5784 + 60640,
    ]


def test_what_waits_in_memory() -> None:
    footprint = run(INFERENCE).memory_footprint_B
    # 80 words' values, 128 of positions, two layers of two norms (16), four of 64 + 8, 128 + 16, 128 + 8; last norm 16.
    assert footprint["weights"] == 2 * (80 + 128 + 2 * (2 * 16 + 4 * 72 + 144 + 136) + 16) == 2848
    # Keys and values of 2 sequences x 5 tokens x 8 values in two layers.
    assert footprint["kv_cache"] == 2 * 2 * (2 * 5 * 8) * 2 == 640
    # The widest moment: ReLU's input and output (192 each) beside the residual (96).
    assert footprint["activations"] == 192 + 192 + 96
    assert footprint["gradients"] == footprint["optimizer_states"] == footprint["master_weights"] == 0
