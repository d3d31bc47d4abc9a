"""Does writing never harm what stands at the path, and is whatever prevents it one clear message?"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tierform.errors import TierformError
from tierform.files import atomic_path, check_output, folder_lock, make_folder, write_json, write_text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, links and locks of POSIX systems")


def test_is_a_device_written_through() -> None:
    write_text(os.devnull, "gone")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_does_a_pipe_stay_a_pipe_and_get_everything(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(10)
    assert json.loads(got[0]) == {"a": 1}
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_are_links_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link, dangling = tmp_path / "there" / "real.json", tmp_path / "link", tmp_path / "dangling"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    dangling.symlink_to("there/new.json")
    for path in (link, dangling):
        write_text(path, "new")
        assert path.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640  # the mode of what stood there
    assert (tmp_path / "there" / "new.json").read_text() == "new"
    assert sorted(one.name for one in (tmp_path / "there").iterdir()) == ["new.json", "real.json"]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_is_a_dash_standard_output(tmp_path: Path, name: str) -> None:
    code = f"from tierform.files import write_text; print('before'); write_text({name!r}, 'text')"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, cwd=tmp_path)
    assert sorted((tmp_path / "out").read_text().split()) == ["before", "text"]
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_is_a_missing_folder_an_error_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(TierformError, match="no such folder") as caught:
        write_text(tmp_path / "reslts" / "a" / "x.json", "x")
    problem = caught.value.problems[0]
    assert problem.nearest == "results"
    assert problem.fix == f"Make it first: mkdir -p {tmp_path / 'reslts' / 'a'}"
    assert [one.name for one in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: path.mkdir(), "folder"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: (path.parent / "file").touch() or path.symlink_to("file/below"), "cannot write"),
    ],
)
def test_is_what_cannot_be_a_file_refused(tmp_path: Path, make: object, word: str) -> None:
    path = tmp_path / "out"
    make(path)  # type: ignore[operator]
    before = sorted(one.name for one in tmp_path.iterdir())
    with pytest.raises(TierformError, match=word):
        write_text(path, "x")
    assert sorted(one.name for one in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_is_what_is_no_name_refused(name: str) -> None:
    with pytest.raises(TierformError, match="no file name"):
        check_output(name)


def test_is_a_write_protected_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o444)
    allowed = os.access  # the super-user may write everything: asked as another user would be
    monkeypatch.setattr(os, "access", lambda at, how: allowed(at, how) and not (how & os.W_OK and Path(at) == path))
    with pytest.raises(TierformError, match="write-protected"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_does_a_full_disk_leave_the_old_file_and_say_so(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from tierform.errors import TierformError\nfrom tierform.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"  # the system refuses as it does for a quota
        "try:\n    write_text('out', 'x' * 9999)\n"
        "except TierformError as error:\n    print(error); sys.exit(2)\n"
    )
    (tmp_path / "out").write_text("old")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "out: cannot write here: File too large" in done.stdout
    assert (tmp_path / "out").read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_is_a_full_standard_output_one_message_and_exit_code_2() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tierform", "list", "studies"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.strip() == "error: cannot write: No space left on device"


def test_is_what_a_killed_process_left_removed_and_what_a_living_one_writes_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import sys, time\nfrom tierform.files import atomic_path\n"
        "with atomic_path('out') as path:\n    path.write_text('half'); print(path.name, flush=True); time.sleep(60)\n"
    )
    made = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (one.stdout.readline().strip() for one in made if one.stdout is not None)
        made[0].send_signal(signal.SIGKILL)
        made[0].wait()
        (tmp_path / ".out.json.0a1b2c3d.part").touch()  # of another target
        write_text(tmp_path / "out", "new")
        left = {one.name for one in tmp_path.iterdir()}
        assert killed not in left
        assert left == {"out", living, ".out.json.0a1b2c3d.part"}
        assert killed in caplog.text
        assert (tmp_path / "out").read_text() == "new"
    finally:
        for one in made:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def test_are_many_writers_of_one_file_never_in_each_others_way(tmp_path: Path) -> None:
    texts = [f"{number}" * 5000 for number in range(8)]
    threads = [
        threading.Thread(target=lambda text=text: [write_text(tmp_path / "out", text) for _ in range(20)])
        for text in texts
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (tmp_path / "out").read_text() in texts
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_does_a_locked_folder_refuse_a_second_process(tmp_path: Path) -> None:
    code = "from pathlib import Path; from tierform.files import folder_lock\nfolder_lock(Path('.')).__enter__()"
    with folder_lock(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "another process is writing into this folder" in done.stderr
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_is_a_folder_made_only_below_one_that_exists(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "runs").is_dir()
    with pytest.raises(TierformError, match="no such folder"):
        make_folder(tmp_path / "rnus" / "first")
    assert make_folder(tmp_path / "cache" / "deep", parents=True).is_dir()


def test_does_a_long_name_leave_room_for_the_part_file(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 126)  # 252 bytes: a part file of the whole name would not fit in 255
    write_text(path, "x")
    assert path.read_text() == "x"


def test_does_a_reader_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        time.sleep(0)
        assert path.read_text() == "old"
    assert path.read_text() == "half"


def test_does_everything_write_through_the_one_way() -> None:
    import re

    import tierform

    root = Path(tierform.__file__).parent
    writes = re.compile(
        r"""\.open\("[wax+]|\.write_(text|bytes)\(|\.mkdir\(|makedirs|[^.]open\([^)]*"[wax]|\.to_csv|\.tofile"""
    )
    allowed = {
        "files.py",
        "folders.py",
        "part_files.py",
        "kept_documents.py",  # a cache, lost without harm
        "compiled.py",
        "network/cycle/compiled.py",  # caches of compiled kernels, lost without harm
        "studies/hetrax.py",  # a temporary folder of its own
        "cli/store_channels.py",
    }
    wrong = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).as_posix() not in allowed
        and path.relative_to(root).parts[0] != "compression"  # whole folders, made beside their place and renamed
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if writes.search(line) and "temporary" not in line
    ]
    assert wrong == []
