"""Prints how many of the wrong answers were rejected, and which were not."""

from collections import defaultdict

import pytest

KILLED = pytest.StashKey[dict]()


def pytest_configure(config):
    config.stash[KILLED] = defaultdict(list)


@pytest.fixture
def record_mutant(request):
    """Note the fate of one mutant: `record_mutant(mutant, killed, result)`."""
    return lambda mutant, killed, result: request.config.stash[KILLED][mutant.lab].append((mutant, killed, result))


def pytest_terminal_summary(terminalreporter, config):
    for lab, fates in sorted(config.stash[KILLED].items()):
        killed = sum(dead for _, dead, _ in fates)
        terminalreporter.write_line(f"{lab}: {killed} of {len(fates)} mutants rejected for the right reason")
        for mutant, dead, result in fates:
            if not dead:
                terminalreporter.write_line(f"  survived: {mutant}: {result}")
