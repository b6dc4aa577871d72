"""`make set-repo REPO=owner/name`: write the repository's address everywhere it stands. Needs no installation.

The address in force is the one in `_config.yml`; every text file that git tracks is brought in line with the new one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from labcore.core.files import atomic_write

SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]{1,100}")
CONFIGURED = re.compile(r"^  url: https://github\.com/(\S+)$", re.MULTILINE)


def current(root: Path) -> str:
    """The `owner/name` that `_config.yml` holds. Raises ValueError if it holds none."""
    match = CONFIGURED.search((root / "_config.yml").read_text(encoding="utf-8"))
    if not match:
        raise ValueError("_config.yml has no line '  url: https://github.com/owner/name' under repository")
    return match[1]


def forms(slug: str) -> list[str]:
    """How an address is written: repository, Colab link, published site (with and without a trailing path)."""
    owner, name = slug.split("/")
    return [f"github.com/{slug}", f"/github/{slug}", f"{owner}.github.io/{name}"]


def mentions(text: str, slug: str) -> bool:
    """Whether `text` holds the address in any of its forms."""
    return any(form.lower() in text.lower() for form in forms(slug))


def tracked_text_files(root: Path) -> list[Path]:
    """Files that git tracks or would track, without binary ones."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=root, check=True, capture_output=True, text=True).stdout
    paths = [root / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink() and b"\0" not in path.read_bytes()]


def set_repository(root: Path, slug: str) -> list[Path]:
    """Replace the address in force by `slug` in every tracked text file; returns the files that changed.

    Raises ValueError if `slug` is not `owner/name`.
    """
    if not SLUG.fullmatch(slug):
        raise ValueError(f"{slug!r} is not a repository; write make set-repo REPO=owner/name")
    old, changed = current(root), []
    for path in tracked_text_files(root):
        before = path.read_bytes().decode("utf-8", errors="surrogateescape")
        after = before
        for here, there in zip(forms(old), forms(slug), strict=True):
            after = re.sub(re.escape(here) + r"(?![\w-])", lambda _, new=there: new, after)
        if after != before:
            atomic_write(path, after.encode("utf-8", errors="surrogateescape"))
            changed.append(path)
    return changed


def main() -> int:
    """Command line: one argument, `owner/name`."""
    slug = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        changed = set_repository(Path.cwd(), slug)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(str(path.relative_to(Path.cwd())) for path in changed) or f"already {slug}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
