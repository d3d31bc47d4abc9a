"""Seeded mutations of text and bytes: the numbers, words and cuts that parsers stumble over."""

from __future__ import annotations

import random
import re

LONGEST = 20_000  # bytes of a mutated input
LONGEST_WORD = 40  # looked back for where a word begins
NASTY = [
    *("0", "-1", "1", "-0", "1e308", "-1e308", "1e309", "1e-320", "nan", "inf", "-inf", ".inf", ".nan", "-1e8", "1e20"),
    *("99999999999", "9223372036854775807", "18446744073709551616", "1" + "0" * 30, "9" * 400, "9" * 5000, "1_000"),
    *("0x10", "0b1", "010", "²", "٣", "１", "1.5.5", "1e", "e5", "--5", "+", ".", "", " ", "true", "null", "~"),
    *("1e30 bit", "-300 degC", "5 m^-9", "1 aeV^-9", "0 %", "1e400 J", "2:4", "4:2", "0:0", "1e308:2", "[]", "{}"),
    *(
        "\0",
        "\x1b[31m",
        "\u202e",
        "\ufeff",
        "\u2028",
        "😀",
        "a" * 300,
        "../../../etc/passwd",
        "/dev/zero",
        "%s",
        "${x}",
    ),
    *('"\\ud800"', "'", '"', "\\", "*a", "&a 1", "!!python/object:os.system x", "<<: 1", "? 1", "- - - 1", "#", "//"),
]
_TOKEN = re.compile(rb"[A-Za-z_][\w.-]*|[-+]?[\d.][\w.+-]*|[^\w\s]")
_INSIDE = re.compile(rb"[\w.+-]")
_NUMBER = re.compile(rb"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def mutated(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The content after one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        content = rng.choice(_CHANGES)(content, others, rng)
    return content[:LONGEST]


def _span(pattern: re.Pattern[bytes], content: bytes, rng: random.Random) -> tuple[int, int]:
    """The word or number at, or next after, a place: not of all of them, which would take longer than the parser."""
    place = rng.randrange(len(content) + 1)
    for _ in range(LONGEST_WORD):
        if place == 0 or not _INSIDE.match(content, place - 1):
            break
        place -= 1
    found = pattern.search(content, place) or pattern.search(content)
    return found.span() if found else (len(content), len(content))


def _number(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(_NUMBER, content, rng)
    return content[:start] + rng.choice(NASTY).encode() + content[end:]


def _scaled(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    _, end = _span(_NUMBER, content, rng)
    power = rng.choice(("0", "000000", "e9", "e-9", "e100", "e-100", "e300"))
    return content[:end] + power.encode() + content[end:]


def _word(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(_TOKEN, content, rng)
    return content[:start] + rng.choice(NASTY).encode() + content[end:]


def _other_word(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start, end = _span(_TOKEN, content, rng)
    source = rng.choice([content, *others])
    first, last = _span(_TOKEN, source, rng)
    return content[:start] + source[first:last] + content[end:]


def _drop_line(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    del lines[rng.randrange(len(lines))]
    return b"\n".join(lines)


def _repeat_line(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place:place] = [lines[place]] * rng.choice((1, 1, 2, 50))
    return b"\n".join(lines)


def _other_line(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    lines, source = content.split(b"\n"), rng.choice([content, *others]).split(b"\n")
    lines[rng.randrange(len(lines))] = rng.choice(source)
    return b"\n".join(lines)


def _cut(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((1, 2, 8, 64, 10**6)))
    return content[:start] + content[end:]


def _flip(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _noise(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.choice((1, 2, 8))) + content[place:]


def _integer(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    place = rng.randrange(len(content) + 1) // size * size
    number = rng.choice((0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, rng.getrandbits(64))) % 2 ** (8 * size)
    return content[:place] + number.to_bytes(size, "little") + content[place + size :]


def _repeat(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((1, 3, 20)))
    return content[:end] + content[start:end] * rng.choice((2, 50, 3000)) + content[end:]


_CHANGES = (_number, _number, _number, _scaled, _word, _other_word, _drop_line, _repeat_line, _other_line, _cut)
_CHANGES += (_flip, _noise, _integer, _repeat)
