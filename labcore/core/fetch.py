"""Download one file and believe it only if its SHA-256 is the expected one."""

import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from labcore.core.errors import FetchError, InputError
from labcore.core.files import atomic_file
from labcore.core.files import sha256 as sha256_of

MB = 10**6
CHUNK = 256 * 1024
TIMEOUT_S = 20.0  # without a single byte


def fetch_url(url: str, dest: str | os.PathLike, sha256: str, progress: bool = True) -> Path:
    """Download `url` to `dest` and return the path; a `dest` that already has this SHA-256 is left as it is.

    The bytes are hashed while they arrive and take the name `dest` only when all of them are there and the hash
    matches; until then, and after any failure or Ctrl-C, `dest` is what it was before. The folder is made if needed.
    `progress` draws one updating line on stderr when that is a terminal.
    Raises InputError for a malformed hash or address, FetchError for everything that can go wrong on the way.
    """
    dest = Path(dest)
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InputError(f"sha256={sha256!r} is not a SHA-256: give 64 lower-case hexadecimal digits")
    if not url.startswith(("https://", "http://")):
        raise InputError(f"url={url!r} cannot be fetched: give an http or https address")
    try:
        if dest.is_file() and sha256_of(dest) == sha256:
            return dest
        dest.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(dest) as file:
            _download(url, dest.name, file, sha256, progress and sys.stderr.isatty())
    except OSError as error:  # the network's own errors are FetchError by now
        raise FetchError(
            f"cannot store {dest} ({error.strerror}): the folder must be writable and have room; LABCORE_CACHE moves it"
        ) from None
    return dest


def _download(url: str, name: str, file: BinaryIO, expected: str, draw: bool) -> None:
    """Copy what `url` serves into `file`; FetchError unless it is complete and hashes to `expected`."""
    digest, received = hashlib.sha256(), 0
    try:
        for chunk, total in _chunks(url):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            if draw:
                whole = f" of {total / MB:.1f}" if total else ""
                print(f"\rfetching {name}: {received / MB:.1f}{whole} MB", end="", file=sys.stderr, flush=True)
    finally:
        if draw:
            print(file=sys.stderr)
    if digest.hexdigest() != expected:
        raise FetchError(
            f"{url} sent {received} bytes with SHA-256 {digest.hexdigest()}, expected {expected}: the file changed "
            "upstream or on the way; nothing was kept"
        )


def _chunks(url: str):
    """Yield (bytes, total size or None) until the answer is complete; each failure is one FetchError sentence."""
    request = urllib.request.Request(url, headers={"User-Agent": "labcore"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            total, received = answer.length, 0
            while chunk := answer.read(CHUNK):
                received += len(chunk)
                yield chunk, total
    except urllib.error.HTTPError as error:
        raise FetchError(f"{url} answered {error.code} {error.reason}; nothing was kept") from None
    except urllib.error.URLError as error:
        raise FetchError(f"cannot reach {url} ({error.reason}): check the network and try again") from None
    except (http.client.HTTPException, OSError) as error:
        raise FetchError(f"the download of {url} broke off ({error!r}); nothing was kept, try again") from None
    if total is not None and received < total:
        raise FetchError(f"{url} sent {received} of {total} bytes; nothing was kept, try again")
