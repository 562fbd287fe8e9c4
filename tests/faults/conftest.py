"""Runs that were left in peace, once for all tests."""

import faulty
import pytest
from processes import done, outcome, run_of


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Returns the folder and the outcome of a toy that nothing happened to."""
    found = {}

    def run(toy):
        if toy not in found:
            folder = tmp_path_factory.mktemp("uninterrupted") / toy
            done(*run_of(toy, folder))
            found[toy] = folder, outcome(folder)
        return found[toy]

    return run


@pytest.fixture(scope="session")
def in_peace(tmp_path_factory):
    """Returns what the run of a second leaves that nothing happens to."""
    folder = tmp_path_factory.mktemp("in_peace") / "run"
    faulty.play(folder)
    return faulty.left(folder)
