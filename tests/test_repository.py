"""The repository agrees with itself: one address, every page in the contents, commands that the README names."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from labcore.learn import repository
from labcore.learn.authoring import find_notebooks
from tests.contents import listed_files

ROOT = Path(__file__).resolve().parents[1]
LEFTOVER = re.compile(r"\b(?:FIXME|XXX|HACK|TODO:)|(?i:lorem ipsum|coming soon)|NotImplementedError\(\s*\)")
SOURCES = {".py", ".md", ".yml", ".yaml", ".toml", ".js", ".css", ".ipynb", ".cfg", ".sh", ""}


def test_every_page_is_in_the_contents_once():
    listed = listed_files()
    pages = [p.relative_to(ROOT).with_suffix("") for p in [*find_notebooks(ROOT), *(ROOT / "book").glob("*.md")]]
    assert sorted(listed) == sorted(map(str, pages))


def test_chapter_and_lab_numbers_stand_in_order():
    for folder in ("book", "labs"):
        names = [name for name in listed_files() if re.match(rf"{folder}/(lab)?\d", name)]
        assert names == sorted(names)


def test_one_repository_address():
    wanted = repository.current(ROOT)
    for path in repository.tracked_text_files(ROOT):
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for slug in re.findall(r"github\.com/(OWNER/[\w.-]+)", text):
            assert slug == wanted, f"{path.name} says {slug}, _config.yml says {wanted}"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the tracked text files in a repository of its own."""
    for path in repository.tracked_text_files(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_set_repo_reaches_every_file_and_can_be_repeated(checkout):
    old = repository.current(checkout)
    changed = repository.set_repository(checkout, "an-owner/a-book")
    assert {"_config.yml", "README.md", "pyproject.toml"} <= {p.name for p in changed}
    left = [
        p for p in repository.tracked_text_files(checkout) if repository.mentions(p.read_text(errors="replace"), old)
    ]
    assert not left
    assert repository.current(checkout) == "an-owner/a-book"
    assert repository.set_repository(checkout, "an-owner/a-book") == []
    repository.set_repository(checkout, "grace/a.b_c")
    assert "grace.github.io/a.b_c" in (checkout / "README.md").read_text()


@pytest.mark.parametrize(
    "slug", ["", "owner", "owner/name/more", "https://github.com/owner/name", "-x/y", "a b/c", "a/b\nc"]
)
def test_set_repo_refuses_what_is_no_repository(checkout, slug):
    before = (checkout / "_config.yml").read_text()
    with pytest.raises(ValueError, match="owner/name"):
        repository.set_repository(checkout, slug)
    assert (checkout / "_config.yml").read_text() == before


def test_readme_names_every_command_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named == targets


def test_no_leftovers():
    found = []
    for path in repository.tracked_text_files(ROOT):
        if path.suffix not in SOURCES or path == Path(__file__) or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if match := LEFTOVER.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n".join(found)


def test_shell_scripts_parse():
    for script in [ROOT / ".ci" / "run", *ROOT.glob(".github/**/*.sh"), *ROOT.glob(".devcontainer/*.sh")]:
        subprocess.run(["bash", "-n", script], check=True)


def test_workflows_are_yaml_with_jobs():
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert workflows
    for path in workflows:
        assert yaml.safe_load(path.read_text())["jobs"], path.name


def test_pinned_versions_satisfy_the_ranges():
    """requirements.txt is the tested set of the ranges in pyproject.toml."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [Requirement(r) for extra in project["optional-dependencies"].values() for r in extra]
    ranges = {r.name: r.specifier for r in [*map(Requirement, project["dependencies"]), *extras]}
    pins = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    assert len(pins) >= 9
    for pin in pins:
        (version,) = (s.version for s in pin.specifier)
        assert pin.name not in ranges or ranges[pin.name].contains(version), f"{pin} is outside {ranges[pin.name]}"
