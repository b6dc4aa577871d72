"""Files are written whole or not at all, and the two folders are found where the environment says."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from labcore.core import files
from labcore.core.errors import FetchError, InputError


@pytest.mark.parametrize("content", ["naïve\r\nline\n", b"\x00\xff", "", b""])
def test_atomic_write_replaces_the_whole_file(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(b"something longer than what follows")
    files.atomic_write(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_exception_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), files.atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_text() == "before"  # the name never shows half a file
        raise KeyboardInterrupt
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_replace_leaves_no_trace(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"cannot write .*a\.txt \(No space left on device\)"):
        files.atomic_write(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == []


def test_permissions_follow_the_old_file_or_the_umask(tmp_path):
    old, new = tmp_path / "old.sh", tmp_path / "new.txt"
    old.write_text("x")
    old.chmod(0o750)
    umask = os.umask(0o027)
    try:
        files.atomic_write(old, "y")
        files.atomic_write(new, "y")
    finally:
        os.umask(umask)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (old, new)] == [0o750, 0o640]


def test_a_symbolic_link_still_points_at_what_was_replaced(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("before")
    link.symlink_to(target)
    files.atomic_write(link, "after")
    assert link.is_symlink() and target.read_text() == "after"


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="the folder must exist") as caught:
        files.atomic_write(tmp_path / "absent" / "a.txt", "x")
    assert str(tmp_path / "absent" / "a.txt") in str(caught.value) and "\n" not in str(caught.value)


def test_a_read_only_folder_is_one_sentence(read_only_folder):
    with pytest.raises(InputError, match="Permission denied"):
        files.atomic_write(read_only_folder / "kept.txt", "after")
    assert (read_only_folder / "kept.txt").read_text() == "before"
    assert os.listdir(read_only_folder) == ["kept.txt"]


def test_sha256_reads_the_whole_file(tmp_path):
    path = tmp_path / "a.bin"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert files.sha256(path) == hashlib.sha256(content).hexdigest()


def test_the_cache_folder_is_the_chosen_one_and_is_created(tmp_path, monkeypatch):
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path / "one" / "two"))
    assert files.cache_dir() == tmp_path / "one" / "two" and files.cache_dir().is_dir()


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "{set}/labcore"),
        ("linux", None, "{home}/.cache/labcore"),
        ("darwin", None, "{home}/Library/Caches/labcore"),
        ("win32", "LOCALAPPDATA", "{set}/labcore"),
        ("win32", None, "{home}/AppData/Local/labcore"),
    ],
)
def test_the_cache_folder_of_each_platform(tmp_path, monkeypatch, platform, variable, expected):
    for name in ("LABCORE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "set"))
    monkeypatch.setattr(files.sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert files.cache_dir() == Path(expected.format(set=tmp_path / "set", home=tmp_path / "home"))


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match="set LABCORE_CACHE to a writable folder"):
        files.cache_dir()


def test_the_data_folder_is_optional_but_never_wrong(tmp_path, monkeypatch):
    monkeypatch.delenv("LABCORE_DATA", raising=False)
    assert files.data_dir() is None
    monkeypatch.setenv("LABCORE_DATA", str(tmp_path))
    assert files.data_dir() == tmp_path
    monkeypatch.setenv("LABCORE_DATA", str(tmp_path / "typo"))
    with pytest.raises(InputError, match=r"LABCORE_DATA=.*typo is not a folder"):
        files.data_dir()
