from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vlm_tune._files import atomic_directory, atomic_file, read_json, sha256, write_json, write_text
from vlm_tune.errors import StorageError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class TestFile:
    def test_it_appears_complete_under_its_name(self, tmp_path: Path) -> None:
        target = tmp_path / "new" / "a.txt"
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            assert not target.exists()
            assert temporary.parent == target.parent
            temporary.write_text("whole")
        assert target.read_text() == "whole"
        assert names(target.parent) == ["a.txt"]

    def test_an_error_leaves_what_was_there(self, tmp_path: Path) -> None:
        target = write_text(tmp_path / "a.txt", "old")
        with pytest.raises(RuntimeError, match="oops"), atomic_file(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("oops")
        assert target.read_text() == "old"
        assert names(tmp_path) == ["a.txt"]

    def test_it_may_be_read_as_any_other_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").touch()
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "plain", write_text(tmp_path / "a", ""))]
        assert modes[0] == modes[1]

    def test_a_file_in_the_way_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        with pytest.raises(StorageError, match="cannot write"):
            write_text(tmp_path / "a" / "b.txt", "")


class TestDirectory:
    def test_it_appears_complete_under_its_name(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        with atomic_directory(target) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / "a.txt").write_text("a")
            assert not target.exists()
        assert (target / "deep" / "a.txt").read_text() == "a"
        assert names(tmp_path) == ["out"]

    def test_it_replaces_an_older_one_wholly(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        for name in ("old.txt", "new.txt"):
            with atomic_directory(target) as temporary:
                (temporary / name).touch()
        assert names(target) == ["new.txt"]
        assert names(tmp_path) == ["out"]

    def test_an_error_leaves_what_was_there(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / "old.txt").touch()
        with pytest.raises(KeyboardInterrupt), atomic_directory(target) as temporary:
            (temporary / "new.txt").touch()
            raise KeyboardInterrupt
        assert names(target) == ["old.txt"]
        assert names(tmp_path) == ["out"]

    def test_a_failed_exchange_puts_the_old_one_back(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / "old.txt").touch()
        with pytest.raises(StorageError), atomic_directory(target) as temporary:
            os.rmdir(temporary)  # noqa: PTH106
        assert names(target) == ["old.txt"]
        assert names(tmp_path) == ["out"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from vlm_tune._files import atomic_directory

    rename = Path.replace

    def replace(self, target):
        rename(self, target)
        if Path(target).parent.suffix == ".old":
            os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = replace
    with atomic_directory(Path(sys.argv[1])) as temporary:
        (temporary / "new.txt").touch()
"""


def test_what_had_stepped_aside_when_a_process_was_killed_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").touch()
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(target)])
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(KeyboardInterrupt), atomic_directory(target):
        raise KeyboardInterrupt
    assert names(target) == ["old.txt"]
    assert names(tmp_path) == ["out"]


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from vlm_tune._files import atomic_directory, atomic_file, write_json
    from vlm_tune.errors import StorageError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    folder = Path(sys.argv[1])
    try:
        if sys.argv[2] == "file":
            with atomic_file(folder / "target") as temporary:
                temporary.write_bytes(b"x" * 20_000)
        elif sys.argv[2] == "json":
            write_json(folder / "target", ["x" * 20_000])
        else:
            with atomic_directory(folder / "target") as temporary:
                (temporary / "small").write_bytes(b"x")
                (temporary / "large").write_bytes(b"x" * 20_000)
    except StorageError as error:
        print(error)
        sys.exit(7)
"""


class TestFullDisk:
    @pytest.mark.parametrize("kind", ["file", "json", "directory"])
    def test_nothing_is_left_and_the_error_says_what_to_do(self, kind: str, tmp_path: Path) -> None:
        before = []
        if kind != "directory":
            write_text(tmp_path / "target", "old")
            before = ["target"]
        process = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), kind],
            capture_output=True,
            text=True,
        )
        assert process.returncode == 7, process.stderr
        assert "no space left" in process.stdout
        assert "target" in process.stdout
        assert names(tmp_path) == before
        if before:
            assert (tmp_path / "target").read_text() == "old"


class TestJson:
    def test_round_trip(self, tmp_path: Path) -> None:
        value = {"name": "Kratzer \N{SNOWMAN}", "numbers": [1, 2.5, None]}
        assert read_json(write_json(tmp_path / "a.json", value)) == value

    def test_no_json_is_written_that_others_cannot_read(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "a.json", float("nan"))
        assert names(tmp_path) == []

    def test_errors_name_the_file_and_the_line(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"gone\.json does not exist"):
            read_json(tmp_path / "gone.json")
        write_text(tmp_path / "a.json", '{"a": 1,\n"b"')
        with pytest.raises(StorageError, match=r"a\.json is not valid JSON.*line 2"):
            read_json(tmp_path / "a.json")
        (tmp_path / "b.json").write_bytes(b"\xff\xfe")
        with pytest.raises(StorageError, match="not valid JSON"):
            read_json(tmp_path / "b.json")


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
