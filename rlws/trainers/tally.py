"""What is counted of runs on the device, between one call of their program and the next."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from rlws.numerics import counts, trees
from rlws.trainers.blocks import check_begun
from rlws.trainers.device_run import Budget, Log
from rlws.trainers.trainer import Control, Progress, limits

MAX = 2**31 - 1  # of an int32
COUNTS = ("steps", "episodes", "cut_steps", "cut_episodes", "updates")


@dataclass
class Tally:
    """What was counted of a run. On the host, as an int32 of the device would not hold it."""

    steps: int = 0
    episodes: int = 0
    # Of these, in a block that the budget cut short: the run stands before it.
    cut_steps: int = 0
    cut_episodes: int = 0
    updates: int = 0
    halted: bool = False
    # [n, 2 + k], returns, lengths and info of the episodes that ended since the last report.
    ended: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def add(self, log: Log) -> None:
        """Adds what happened in a chunk."""
        self.steps += int(log.steps)
        self.episodes += int(log.episodes)
        self.cut_steps += int(log.cut_steps)
        self.cut_episodes += int(log.cut_episodes)
        self.halted = bool(log.halted)
        rows = log.ended[: log.rows].reshape(-1, log.ended.shape[-1])
        kept = self.ended if len(self.ended) else np.zeros((0, rows.shape[1]))
        self.ended = np.concatenate([kept, rows[rows[:, 1] > 0]])

    def spent(self, control: Control) -> bool:
        """Returns whether the budget is."""
        steps, episodes = limits(control.steps, control.episodes)
        return self.steps >= steps or self.episodes >= episodes

    def budget(self, control: Control, report: float) -> Budget:
        """Returns how far the next chunk may go, at most to so many steps in all."""
        steps, episodes = limits(control.steps, control.episodes)
        updates = MAX if control.max_updates is None else counts.wrapped(control.max_updates)
        left = report - self.steps, steps - self.steps, episodes - self.episodes, updates
        found: Any = [np.int32(np.clip(x, 0, MAX)) for x in left]
        return Budget(*found)

    def progress(self, control: Control, **also: Any) -> Progress:
        """Returns it as reported, with whatever else is known."""
        known = dict(halted=self.halted, spent=self.spent(control), **also)
        return Progress.of(self.steps, self.episodes, self.updates, self.ended, **known)

    def uncut(self) -> None:
        """Forgets the block that was cut short, as it is to be played whole."""
        self.steps -= self.cut_steps
        self.episodes -= self.cut_episodes
        self.ended = self.ended[: len(self.ended) - self.cut_episodes]
        self.cut_steps = self.cut_episodes = 0


def begin(compiled: Any, environment: Any, control: Control) -> tuple[Any, list[Tally], int]:
    """Returns runs, tallies and when to report, at the beginning or where they were saved."""
    if control.resume is None:
        run = compiled.init()
        name = type(environment).__name__
        for timestep in compiled.split(run.timestep):
            check_begun(environment.spec(), timestep, name)
        return run, [Tally() for _ in compiled.agents], 0
    arrays, facts = control.resume
    run = compiled.restore(trees.restore(jax.eval_shape(compiled.init), arrays, "run"))
    tallies = []
    for i, halted in enumerate(compiled.split(run.state.halted)):
        known = {name: facts[name][i] for name in COUNTS}
        tallies.append(Tally(**known, halted=bool(halted), ended=arrays[f"ended/{i}"]))
        if not tallies[-1].spent(control):  # the budget was raised
            tallies[-1].uncut()
    return run, tallies, facts["next_report"]
