"""A folder that cannot be written to, even where the tests run as root."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def _without_root():
    """Root may write anywhere; take another effective user for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only_folder():
    if not hasattr(os, "geteuid"):
        pytest.skip("this platform has no user ids: folder permissions work another way")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kept.txt").write_text("before")
        folder.chmod(0o555)
        with _without_root():
            yield folder
        folder.chmod(0o755)
