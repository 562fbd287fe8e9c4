"""A run that was left in peace, once for all tests of the verbs, and how to call one."""

import shutil
from typing import NamedTuple

import pytest

from rlws.__main__ import main
from tests.commands.toys import run_toy


class Ended(NamedTuple):
    """What a verb came to."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The folder of a finished run, which is only read."""
    return run_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture
def copy(toy, tmp_path):
    """A copy of that folder, to do with as one likes."""
    return shutil.copytree(toy, tmp_path / "toy")


@pytest.fixture
def rlws(capsys):
    """Calls `rlws` with these arguments."""

    def call(*args):
        capsys.readouterr()
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as end:
            status = end.code or 0
        return Ended(status, *capsys.readouterr())

    return call


@pytest.fixture
def refused(rlws):
    """Calls `rlws` with arguments that must be refused; returns the one line that says why."""

    def call(*args, status=2):
        found = rlws(*args)
        assert found.status == status, found
        assert found.out == ""
        assert found.err.count("\n") == 1, found.err
        assert found.err.startswith("error: ")
        return found.err.removeprefix("error: ").rstrip("\n")

    return call
