"""Bugs by rule: draws some, and says what share the fast tests kill and the doctor sees and names.

    python -m tests.mutation.generated [--seed 0] [--count 20] [--no-tests] [FILE ...]

Of an agent's file every mistake of `operators.py` is a mutant; by default of those of the zoo, and
of what lies in ../shared/cases. What changes nothing that a toy agent makes of known experience,
nor anything the doctor's parts see, is called the same, and counted apart. The doctor's probes
are played where its parts find nothing.
"""

import argparse
import ast
import functools
import pathlib
import random
import sys
from typing import NamedTuple

import numpy as np

from tests.mutation import children
from tests.mutation.bug import ROOT, Bug
from tests.mutation.operators import Mutant, mutants

SECONDS = 600
PARTS = ("actor", "adder", "learner")
CASES = ROOT.parent / "shared" / "cases"
ZOO = ROOT / "agents_zoo"
ILL = ("qr_dqn_target_not_stopped",)  # without a mutation, too


class Fate(NamedTuple):
    """What became of a mutant."""

    test: str  # "killed", "SURVIVED", "no test" or what happened instead
    same: bool  # as far as a toy agent's outputs say
    crashes: bool  # it cannot be compiled
    failed: list[tuple[str, str]] | None  # checks and where each says to look; None: no answer

    def named(self, path: pathlib.Path, mutant: Mutant) -> bool:
        """Returns whether the first failure says to look at the class that has the mistake.

        Or at the file, where it is one of a function, or cannot be compiled.
        """
        where = mutant.owner if mutant.owner and not self.crashes else path.name
        return bool(self.failed) and where in self.failed[0][1]


def main(args: list[str] | None = None) -> int:
    """Prints what became of each mutant, and the shares."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.generated", description=__doc__)
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--no-tests", action="store_true", help="ask the doctor only")
    given = parser.parse_args(args)
    drawn = draw([path.resolve() for path in given.files] or agents(), given.seed, given.count)
    fates = []
    for path, mutant in drawn:
        fate = play(path, mutant, not given.no_tests)
        fates.append(fate)
        said = "no answer" if fate.failed is None else ", ".join(x for x, _ in fate.failed)
        right = "named" if fate.named(path, mutant) else ""
        kind = "the same" if fate.same else "does not compile" if fate.crashes else ""
        print(f"{path.stem}:{mutant.line} {mutant.operator}: {mutant.before} -> {mutant.after}")
        print(f"    {fate.test}; {said or 'nothing'}; {right or 'not named'} {kind}", flush=True)
    show(drawn, fates, given.seed)
    return 0


def agents() -> list[pathlib.Path]:
    """Returns the files that have settings of an agent and a class that is none."""
    every = [*sorted(ZOO.glob("*.py")), *sorted(CASES.glob("*.py"))]
    files = [path for path in every if path.stem not in ILL]
    names = lambda path: [x.name for x in ast.parse(path.read_text()).body if hasattr(x, "name")]
    return [path for path in files if "Config" in names(path) and len(names(path)) > 1]


def draw(files: list[pathlib.Path], seed: int, count: int) -> list[tuple[pathlib.Path, Mutant]]:
    """Returns some mutants of the files, without putting any back."""
    every = [(path, mutant) for path in files for mutant in mutants(path.read_text())]
    return random.Random(seed).sample(every, min(count, len(every)))


def play(path: pathlib.Path, mutant: Mutant, test: bool = True) -> Fate:
    """Lets the fast tests of an agent, and the doctor, look at it with the mistake."""
    ours = path.is_relative_to(ROOT)
    agent = f"agents_zoo.{path.stem}" if ours else str(path)
    name = str(path.relative_to(ROOT)) if ours else str(path)
    source = path.read_text()
    bug = Bug("generated", name, source, mutant.source, agent, (), "", None)
    call = lambda bug, function, *args: children.call(bug, "generated", SECONDS, function, *args)
    # What parts say is cheap. Of what they find healthy, only what differs is worth the probes.
    failed, error = call(bug, children.ask_where, agent, PARTS)
    same = False
    if not failed:
        found, error = call(bug, children.ask_outputs, agent)
        before = _outputs(name, source, agent)
        same = found is not None and before is not None and _alike(found, before)
        if failed is not None and not same and not error:
            failed = call(bug, children.ask_where, agent, ())[0]
    crashes = bool(error or (failed and failed[0][0] == "agent: shapes"))
    file = ROOT / "tests" / "agents_zoo" / f"test_{path.stem}.py"
    ended = "no test"
    if test and file.is_file():
        ran, why = call(bug, children.run_test, str(file), "-m", "not slow")
        ended = why or ("killed" if ran[1] else "SURVIVED" if ran[0] == 0 else f"ERROR {ran[0]}")
    return Fate(ended, same, crashes, failed)


@functools.cache
def _outputs(name: str, source: str, agent: str) -> list[np.ndarray] | None:
    """Returns what an agent makes of known experience without a mistake."""
    bug = Bug("none", name, source, source, agent, (), "", None)
    return children.call(bug, "generated", SECONDS, children.ask_outputs, agent)[0]


def show(drawn: list[tuple[pathlib.Path, Mutant]], fates: list[Fate], seed: int) -> None:
    """Prints the shares: of all, and of those that can be compiled and differ."""
    other = [(*pair, fate) for pair, fate in zip(drawn, fates, strict=True) if not fate.same]
    compiled = [x for x in other if not x[2].crashes]
    print(f"seed {seed}: {len(drawn)} mutants, {len(drawn) - len(other)} of them the same")
    for what, some in (("all others", other), ("those that compile", compiled)):
        tests = [fate.test for _, _, fate in some if fate.test != "no test"]
        seen = [x for x in some if x[2].failed]
        right = sum(fate.named(path, mutant) for path, mutant, fate in seen)
        print(
            f"{what}: fast tests kill {tests.count('killed')} of {len(tests)}; the doctor ", end=""
        )
        print(f"sees {len(seen)} of {len(some)} and names {right} of those first")


def _alike(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    equal = lambda x, y: x.shape == y.shape and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
    return len(one) == len(other) and all(map(equal, one, other))


if __name__ == "__main__":
    sys.exit(main())
