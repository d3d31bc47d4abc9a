"""Does every way of writing a quantity come out as the same SI number, and is every other one refused?"""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.units import format_quantity, name_suffix, parse_quantity, unit_scale, whole_number


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("0.9 pJ/bit", "J/B", 7.2e-12),
        ("100 MHz", "Hz", 1e8),
        ("64 KiB", "B", 65536),
        ("80 GB", "B", 80e9),
        ("256 bit", "B", 32),
        ("256 bit", "bit", 256),
        ("19.2 GB/s", "B/s", 19.2e9),
        ("312 TFLOP/s", "1/s", 312e12),
        ("0.372 mm^2", "m^2", 0.372e-6),
        ("0.372 mm²", "m^2", 0.372e-6),
        ("400 W/(m*K)", "W/(m*K)", 400),
        ("45 degC", "K", 318.15),
        ("12 us", "s", 12e-6),
        ("12 µs", "s", 12e-6),
        ("1 kWh", "J", 3.6e6),
        ("0.85", "1", 0.85),
        ("85 %", "1", 0.85),
        ("37 fF", "F", 37e-15),
        ("1_000 ns", "s", 1e-6),
        (3, "1", 3.0),
    ],
)
def test_is_the_same_number_however_it_is_written(text: object, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "word"),
    [
        ("5", "s", "missing"),
        (5, "J", "missing"),
        ("5 furlongs", "m", "unknown unit"),
        ("5 m", "s", "converts to s"),
        ("five s", "s", "not a number"),
        ("nan s", "s", "not a number"),
        ("1e999 s", "s", "not finite"),
        (True, "s", "a number"),
        (None, "s", "a number"),
        ("1 mmin", "s", "unknown unit"),
        ("3 m/", "m", "unknown unit"),
    ],
)
def test_is_a_wrong_quantity_refused_with_its_key(text: object, unit: str, word: str) -> None:
    with pytest.raises(TierformError, match=word) as caught:
        parse_quantity(text, unit, key="tile.width")
    assert caught.value.problems[0].key == "tile.width"


@given(st.floats(1e-15, 1e15), st.sampled_from(["p", "n", "u", "m", "", "k", "M", "G"]))
def test_does_a_prefix_scale_by_its_power_of_ten(number: float, prefix: str) -> None:
    power = {"p": -12, "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9}[prefix]
    assert parse_quantity(f"{number!r} {prefix}J", "J") == pytest.approx(number * 10.0**power, rel=1e-12)


@given(st.floats(1e-16, 1e17))
def test_does_the_shown_number_read_back(value: float) -> None:
    assert parse_quantity(format_quantity(value, "J", digits=12), "J") == pytest.approx(value, rel=1e-9)


@given(st.text(max_size=30))
def test_does_no_text_crash_the_parser(text: str) -> None:
    with contextlib.suppress(TierformError):
        assert math.isfinite(parse_quantity(text, "J/B"))


def test_are_units_named_in_identifiers() -> None:
    assert name_suffix("J/B") == "J_per_B"
    assert unit_scale("W/(m*K)") == (1.0, (1, 1, -3, 0, -1, 0))
    assert unit_scale("no such") is None


def test_are_counts_shown_without_prefixes_below_a_thousand() -> None:
    assert format_quantity(0.8, "") == "0.8"
    assert format_quantity(2_500_000, "") == "2.5 M"
    assert format_quantity(0.0, "s") == "0 s"
    assert format_quantity(358.15, "K") == "85.0 °C"
    assert format_quantity(3.5e-4, "m2") == "350 mm²"
    assert format_quantity(1.2202e-3, "m2", 3) == "1,220 mm²"
    assert format_quantity(2.25e-10, "m^2/bit") == "225 µm²/bit"
    assert format_quantity(1.21e-10, "J/(bit*m)") == "121 pJ/(bit·m)"
    assert format_quantity(12e9, "1/s") == "12 G/s"


def test_does_a_long_number_take_linear_time() -> None:
    # 3,000 digits took 100 s when two parts of the expression could share a digit
    import time

    begin = time.process_time()
    for text in ("1" * 3000, "1" * 3000 + "!", "1_" * 1500 + "x", "." * 3000, "1e" * 1500, " " * 3000 + "x"):
        with pytest.raises(TierformError):
            parse_quantity(text, "s")
    assert time.process_time() - begin < 0.2


@pytest.mark.parametrize(
    "text", ["² s", "٣ s", "1e39 Ts", "1e-41 s", "-300 degC", "1 aeV^-9", "1 m^999999", "1 s/am^9"]
)
def test_is_no_nonsense_taken_for_a_quantity(text: str) -> None:
    with pytest.raises(TierformError):
        parse_quantity(text, "K" if "deg" in text else "s")


def test_is_an_integer_of_any_size_refused_or_read() -> None:
    assert parse_quantity(10**30, "1") == 1e30
    with pytest.raises(TierformError, match=r"finite|physical"):
        parse_quantity(10**4000, "1")


def test_is_a_whole_number_plain_digits_and_no_more_than_a_machine_word() -> None:
    assert whole_number("0") == 0 and whole_number("0" * 17 + "7") == 7 and whole_number("9" * 18) == 10**18 - 1
    for text in ("", "-1", "+1", " 1", "1 ", "1_0", "1.0", "²", "٣", "１", "x", "9" * 19, "9" * 6000):
        assert whole_number(text) is None, text
