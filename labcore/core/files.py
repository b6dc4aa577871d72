"""Where files live, and how they are written: whole or not at all.

Two folders, both chosen by the environment: LABCORE_CACHE for what was downloaded, LABCORE_DATA for raw traces.
"""

import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from labcore.core.errors import FetchError, InputError


def cache_dir() -> Path:
    """The folder for downloads, created if it is missing: $LABCORE_CACHE, else labcore/ in the user's cache folder.

    Raises FetchError if it cannot be created.
    """
    chosen = os.environ.get("LABCORE_CACHE")
    folder = Path(chosen).expanduser() if chosen else _user_cache() / "labcore"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"cannot create the cache folder {folder} ({error.strerror}): set LABCORE_CACHE to a writable folder"
        ) from None
    return folder


def _user_cache() -> Path:
    """The platform's folder for files that can be fetched again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def data_dir() -> Path | None:
    """The folder of raw workload traces, $LABCORE_DATA; None if that is unset, InputError if it is not a folder."""
    chosen = os.environ.get("LABCORE_DATA")
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise InputError(f"LABCORE_DATA={chosen} is not a folder: point it at the traces, or unset it")
    return folder


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends, and vanishes if the block raises.

    The bytes go to a hidden file in the same folder, are flushed to disk, and enter under the name in one os.replace:
    no reader, crash or Ctrl-C ever meets half a file. An existing file keeps its permissions; a symbolic link keeps
    pointing at what was replaced. OSError passes through.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):  # gone after a success; never there if open failed
            part.unlink()


def atomic_write(path: str | os.PathLike, content: bytes | str) -> None:
    """Write `content` to `path`, whole or not at all; text as UTF-8 with its line ends untouched.

    Raises InputError naming the path if its folder is missing or cannot be written to.
    """
    try:
        with atomic_file(path) as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}): the folder must exist, be writable and have room"
        ) from None


def check_creatable(folder: Path, option: str) -> None:
    """Raises InputError, naming the `option` that chose it, unless a file can be made in `folder`, or where it will be.

    For commands that would otherwise work for an hour before they find out.
    """
    try:
        nearest = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written to ({error.strerror}); name another folder") from None


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
