"""Do the examples of docs/thermal.md run and give what is printed there?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "thermal.md"


def test_the_python_example(tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.S)[0]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"TIERFORM_CACHE": str(tmp_path)}
    )
    assert f"prints `{done.stdout.strip()}`" in text


def test_the_command_example(tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8")
    (tmp_path / "chip.flp").write_text("cores 0.005 0.010 0 0\ncache 0.005 0.010 0.005 0\n")
    (tmp_path / "chip.ptrace").write_text("cores cache\n25 4\n15 4\n")
    config = "-t_chip 0.00015\n-k_chip 130\n-r_convec 0.25\n-ambient 308.15\n-sampling_intvl 0.01\n-grid_map_mode avg\n"
    (tmp_path / "hotspot.config").write_text(config)
    command = re.search(r"^\$ tierform (thermal .*)$", text, re.M)
    assert command is not None
    done = subprocess.run(
        [sys.executable, "-m", "tierform", *command.group(1).split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    for line in ("chip/cores            20  319.60  46.45", "chip/cache             4  316.22  43.07"):
        assert line in text
        assert line in done.stdout
    assert (tmp_path / "chip.json").exists()
