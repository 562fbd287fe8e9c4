"""The bugs themselves: each applies, and names a test there is. That tests kill them is slow."""

import ast
import difflib
import functools

import pytest

from tests.mutation import __main__ as matrix
from tests.mutation.__main__ import catch
from tests.mutation.bug import ROOT
from tests.mutation.bugs import BUGS

IDS = [bug.name for bug in BUGS]


@functools.cache
def functions(file):
    body = ast.parse((ROOT / file).read_text()).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def test_bugs_have_names_of_their_own():
    assert len(set(IDS)) == len(IDS) >= 25


@pytest.mark.parametrize("bug", BUGS, ids=IDS)
def test_bug_changes_a_few_lines_and_compiles(bug):
    before = bug.path.read_text()
    after = bug.apply(before)  # or raises
    compile(after, bug.file, "exec")
    pairs = difflib.ndiff(before.splitlines(), after.splitlines())
    signs = [line[0] for line in pairs]
    assert 1 <= max(signs.count("-"), signs.count("+")) <= 5


@pytest.mark.parametrize("bug", BUGS, ids=IDS)
def test_bug_names_a_fast_test_and_a_check_or_a_reason(bug):
    file, _, name = bug.test.partition("::")
    marks = map(ast.unparse, functions(file)[name.partition("[")[0]].decorator_list)
    assert "pytest.mark.slow" not in marks
    assert (bug.component is None) == bool(bug.reason)


def test_bug_that_does_not_apply_is_named():
    bug = BUGS[0]._replace(old="nowhere to be found")
    with pytest.raises(ValueError, match=f"{bug.name}: must be once in {bug.file}, is 0 times"):
        bug.apply(bug.path.read_text())


def killed(bugs):
    found = catch(bugs, diagnose=False)
    ended = {bug.name: caught.test for bug, caught in zip(bugs, found, strict=True)}
    assert ended == dict.fromkeys(ended, "killed")


@pytest.mark.slow
def test_bugs_are_killed_by_their_tests():
    """One for each file of tests: that a test no longer can fail comes about where it is edited."""
    killed([*{bug.test.partition("::")[0]: bug for bug in BUGS}.values()])


@pytest.mark.thorough
def test_every_bug_is_killed_by_its_test():
    killed(BUGS)


@pytest.mark.slow
def test_only_a_test_that_fails_kills(monkeypatch):
    bug = next(bug for bug in BUGS if bug.name == "trace_not_cut")
    harmless = bug._replace(name="harmless", new=f"{bug.old}  # no bug")
    unreadable = bug._replace(name="unreadable", new="return (")
    found = catch([harmless, unreadable], diagnose=False)
    assert [caught.test for caught in found] == ["SURVIVED", f"ERROR {pytest.ExitCode.USAGE_ERROR}"]
    monkeypatch.setattr(matrix, "TEST_SECONDS", 5)
    endless = bug._replace(name="endless", new="while True:\n            pass")
    assert catch([endless], diagnose=False) == [(False, "TIMEOUT", None, "not asked")]


@pytest.mark.thorough
def test_the_doctor_names_some_of_them():
    """All take half an hour: `python -m tests.mutation`."""
    names = ["dqn_target_never_moves", "reward_one_step_early"]
    assert matrix.main(names) == 0
