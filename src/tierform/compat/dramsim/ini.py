"""Sections, keys and values of a DRAMsim3 configuration, with their lines and what is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tierform.errors import Problem, TierformError, nearest

_KEYS = {
    "dram_structure": "protocol bankgroups banks_per_group rows columns device_width BL num_dies bankgroup_enable "
    "hbm_dual_cmd",
    "timing": "tCK AL CL CWL tRCD tRCDRD tRCDWR tRP tRAS tRFC tRFC2 tRFC4 tRFCb tRFCPB tREFI REFI tREFIb tRPRE tWPRE "
    "tRRD_S tRRD_L tWTR_S tWTR_L tFAW tWR tWR2 tRTP tRTP_L tRTP_S tCCD_S tCCD_L tCKE tCKESR tCKSRE tXS tXP tRTRS tPPD "
    "t32AW tRREFD tCMD activation_window_depth ideal_memory_latency",
    "power": "VDD IDD0 IDD1 IPP0 IDD2P IDD2N IDD2Q IDD3P IDD3Pf IDD3Ps IDD3N IDD4W IDD4R IDD5 IDD5AB IDD5PB IDD6 IDD6L "
    "IDD6x IDD7",
    "system": "channel_size channels bus_width address_mapping queue_structure refresh_policy row_buf_policy "
    "cmd_queue_size trans_queue_size unified_queue write_buf_size enable_self_refresh sref_threshold "
    "aggressive_precharging_enabled",
}
_IGNORED_SECTIONS = ("other", "thermal", "hmc")
_MOST = 1e8  # of any number: a timing of 10^8 cycles is a tenth of a second


@dataclass(frozen=True)
class Ini:
    """Values with their lines, by section and key."""

    file: str
    values: dict[tuple[str, str], tuple[str, int]]

    def line(self, section: str, key: str) -> int | None:
        """Where the key stands."""
        entry = self.values.get((section, key))
        return entry[1] if entry else None

    def text(self, section: str, key: str, default: str) -> str:
        """The value as it is written."""
        entry = self.values.get((section, key))
        return entry[0] if entry else default

    def has(self, section: str, key: str) -> bool:
        """Whether the key is there."""
        return (section, key) in self.values


def parse(text: str, file: str) -> Ini:
    """The sections and keys of a text; TierformError with every line that is no such thing."""
    values: dict[tuple[str, str], tuple[str, int]] = {}
    problems: list[Problem] = []
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.split(r"[;#]", raw, maxsplit=1)[0].strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            if section not in _KEYS and section not in _IGNORED_SECTIONS:
                close = nearest(section, [*_KEYS, *_IGNORED_SECTIONS])
                problems.append(Problem("unknown section", file, number, section, None, close))
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not section:
            problems.append(Problem("a line 'key = value' in a [section] is needed", file, number, None, raw.strip()))
        elif section in _KEYS and key not in _KEYS[section].split():
            problems.append(Problem("unknown key", file, number, key, None, nearest(key, _KEYS[section].split())))
        elif (section, key) in values:
            problems.append(Problem("this key stands twice", file, number, key))
        else:
            values[section, key] = (value, number)
    if problems:
        raise TierformError(problems)
    return Ini(file, values)


class Reader:
    """Takes values out of an ini, collecting what is wrong."""

    def __init__(self, ini: Ini) -> None:
        self.ini = ini
        self.problems: list[Problem] = []

    def number(
        self, section: str, key: str, default: float | None = None, *, least: float = 0, most: float = _MOST
    ) -> float:
        """A number between `least` and `most`, or the default; without one the key is needed."""
        entry = self.ini.values.get((section, key))
        if entry is None:
            if default is None:
                what = f"[{section}] lacks this key"
                self.problems.append(Problem(what, self.ini.file, None, key, fix="The standard's value is needed."))
            return default if default is not None else 1.0
        try:
            # A remark in parentheses behind the number is no part of it: "0.666 (1/1.5)".
            value = float(entry[0].partition("(")[0] if entry[0].endswith(")") else entry[0])
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            what = f"a number between {least:g} and {most:g} is needed"
            self.problems.append(Problem(what, self.ini.file, entry[1], key, entry[0]))
            return max(1.0, least)
        return value

    def whole(self, section: str, key: str, default: int | None = None, *, least: int = 0, most: float = _MOST) -> int:
        """As :meth:`number`, without a fraction."""
        value = self.number(section, key, default, least=least, most=most)
        if value != int(value):
            what = "a whole number is needed"
            self.problems.append(Problem(what, self.ini.file, self.ini.line(section, key), key, value))
        return int(value)

    def choice(self, section: str, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of the choices."""
        value = self.ini.text(section, key, default)
        if value not in choices:
            line = self.ini.line(section, key)
            fix = f"Known: {', '.join(choices)}."
            self.problems.append(
                Problem(
                    what="not a known choice",
                    file=self.ini.file,
                    line=line,
                    key=key,
                    value=value,
                    nearest=nearest(value, choices),
                    fix=fix,
                )
            )
        return value

    def flag(self, section: str, key: str, default: bool) -> bool:
        """True or false."""
        value = self.ini.text(section, key, str(default)).lower()
        if value not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            line = self.ini.line(section, key)
            self.problems.append(Problem("true or false is needed", self.ini.file, line, key, value))
        return value in ("true", "yes", "on", "1")
