"""The two sides of a comparison: seeds of one setting each, in the same environments."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlws.analysis.results import Group, Result, gather, grouped
from rlws.runs.differences import labels
from rlws.settings import SettingError
from rlws.tracking.columns import signed

Scales = Mapping[str, tuple[float, float]]  # of environments: returns that count as 0 and as 1


class Side(NamedTuple):
    """Runs of one setting, in one environment or several."""

    name: str  # A or B
    label: str  # what sets it apart from the other side
    tasks: dict[str, Group]  # by environment, sorted

    @property
    def results(self) -> list[Result]:
        return [result for group in self.tasks.values() for result in group.results]

    @property
    def seeds(self) -> int:
        """In each environment, at least."""
        return min(len(group.results) for group in self.tasks.values())


def make_sides(
    ours: Sequence[str], theirs: Sequence[str] | None
) -> tuple[tuple[Side, Side], list[str]]:
    """Returns A and B with notes for the reader.

    Args:
      ours: folders of A.
      theirs: folders of B; None: those of A hold runs of two settings, which are the sides.

    Raises:
      SettingError: there are no such two sides.
    """
    notes: list[str] = []
    if theirs is None:
        groups, notes = grouped(gather(ours))
        if len(groups) != 2:
            raise SettingError(
                f"without --against, DIR must be A and B, or hold runs of two settings, got "
                f"{_listed(groups)}; name both sides"
            )
        found: list[Sequence[Result]] = [group.results for group in groups]
    else:
        found = [gather(ours), gather(theirs)]
        ours_too = {result.directory.resolve() for result in found[0]}
        shared = [str(r.directory) for r in found[1] if r.directory.resolve() in ours_too]
        if shared:
            raise SettingError(
                f"A and B must have no run in common, got {shared[0]} in both; leave it out of one"
            )
    tasks = [_tasks(name, results, notes) for name, results in zip("AB", found, strict=True)]
    return _checked(tasks, notes), notes


def _tasks(name: str, results: Sequence[Result], notes: list[str]) -> dict[str, Group]:
    tasks = {}
    for environment in sorted({result.environment for result in results}):
        groups, found = grouped([r for r in results if r.environment == environment])
        if len(groups) > 1:
            raise SettingError(
                f"{name} must be seeds of one setting, got {_listed(groups)}; "
                "name the folders of one"
            )
        tasks[environment] = groups[0]
        notes += found
    return tasks


def _checked(tasks: Sequence[dict[str, Group]], notes: list[str]) -> tuple[Side, Side]:
    ours, theirs = tasks
    if [*ours] != [*theirs]:
        raise SettingError(
            f"A and B must be of the same environments, got {', '.join(ours)} and "
            f"{', '.join(theirs)}; compare runs of one"
        )
    firsts = [next(iter(side.values())).results[0] for side in tasks]
    told = labels([result.config for result in firsts])
    # Of equal settings, code or data may differ: the folders say which is which.
    texts = told if any(told) else [str(result.directory) for result in firsts]
    if firsts[0].config.get("steps") != firsts[1].config.get("steps"):
        notes.append("A and B were trained for different numbers of steps")
    a, b = (Side(*of) for of in zip("AB", texts, tasks, strict=True))
    return a, b


def _listed(groups: Sequence[Group]) -> str:
    texts = [group.label for group in groups]
    more = f" and {len(texts) - 4} more" if len(texts) > 4 else ""
    return f"{len(texts)}: {'; '.join(texts[:4])}{more}"


def scores(side: Side, metric: str, failed: float | None, scales: Scales) -> np.ndarray:
    """Returns the scores of a side by seed, [n], or [tasks, n] of several environments.

    Args:
      side: its runs.
      metric: entry of summary.json; of name:min, where less is better, the sign is turned.
      failed: score of a run that an error ended; None: there must be no such run.
      scales: of environments; several cannot be averaged without.

    Raises:
      SettingError: a score or a scale is missing, or environments have different numbers of seeds.
    """
    rows, (name, sign) = [], signed(metric)
    for environment, group in side.tasks.items():
        if len(side.tasks) > 1 and environment not in scales:
            raise SettingError(
                f"scores of several environments need a scale each, got none for {environment}; "
                f"add --scale {environment}=RETURN_OF_0,RETURN_OF_1"
            )
        low, high = scales.get(environment, (0.0, 1.0))
        row = np.array([score(result, name, failed) for result in group.results])
        rows.append(sign * (row - low) / (high - low))
    if len({len(row) for row in rows}) > 1:
        counts = ", ".join(f"{len(r)} in {e}" for e, r in zip(side.tasks, rows, strict=True))
        raise SettingError(
            f"{side.name} must have as many seeds in each environment, got {counts}; add or leave "
            "out runs"
        )
    return np.stack(rows) if len(rows) > 1 else rows[0]


def score(result: Result, metric: str, failed: float | None) -> float:
    """Returns the score of a run.

    A run that did not finish has none, whatever it reached: leaving out those that fail would
    flatter a side.

    Raises:
      SettingError: it has none, and should not be counted as failed.
    """
    reason = str(result.summary.get("ended_by", ""))
    if reason and failed is not None and not reason.startswith(("KeyboardInterrupt", "Interrupt")):
        return failed
    if result.state != "finished":
        raise SettingError(
            f"{result.directory} must be finished, got {result.state}; go on with it, leave it "
            "out, or let --failed SCORE say what runs count that an error ended"
        )
    found = result.number(metric)
    if not math.isfinite(found):
        known = ", ".join(k for k, v in result.summary.items() if isinstance(v, float))
        raise SettingError(
            f"--metric must be a number in the summary of {result.directory}, got {metric!r}; it "
            f"has {known or 'none'}"
        )
    return found
