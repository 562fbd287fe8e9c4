"""What checkpoints cost: `python -m benchmarks.checkpoint`.

Segments of training in alternation, one of them with a checkpoint: the difference is what one
costs, what it does to caches included. Then how long a run takes to be read, checked and resumed.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from functools import partial

from agents_zoo import dqn, ppo
from benchmarks.measure import alternate
from rlws.numerics import checkpoint
from rlws.runs.checkpointer import SECONDS, SHARE
from rlws.trainers import HostTrainer, Snapshot

ENVIRONMENT = "gym:CartPole-v1"
# Name: settings, environments, steps a segment.
WORK = {
    "PPO": (ppo.Config(unroll_length=128, epochs=4, minibatches=4), 4, 20_480),
    "DQN, replay of 50,000": (dqn.Config(), 1, 1_000),
    "DQN, replay of 1,000,000": (dqn.Config(capacity=1_000_000), 1, 1_000),
}


class Training:
    """A run, and the folder of its checkpoints."""

    def __init__(self, config, num_envs, segment, folder: pathlib.Path):
        self.config, self.num_envs, self.segment, self.folder = config, num_envs, segment, folder
        self.seconds = list[float]()  # of each save
        self._runs = self._train()
        self._last = next(x for x in self._runs if x.updates)

    def advance(self, saving: bool) -> int:
        """Trains for a segment, with a checkpoint at its end or without; returns its steps."""
        before = self._last.steps
        self._last = next(self._runs)
        if saving:
            began = time.perf_counter()
            arrays, facts = self._last.snapshot()
            name = f"{self._last.steps:012d}"
            checkpoint.save(self.folder, name, arrays, {"trainer": facts})
            self.seconds.append(time.perf_counter() - began)
        return self._last.steps - before

    def restore(self) -> tuple[float, float]:
        """Returns the seconds to read and check the newest checkpoint, and to go on from it."""
        began = time.perf_counter()
        saved = checkpoint.newest(self.folder, print)
        assert saved is not None
        read = time.perf_counter()
        next(self._train(Snapshot(saved.arrays, saved.facts["trainer"])))
        return read - began, time.perf_counter() - read

    def size(self) -> int:
        """Returns the bytes of the newest checkpoint."""
        newest = self.folder / checkpoint.names(self.folder)[-1]
        return sum(path.stat().st_size for path in newest.iterdir())

    def _train(self, resume=None):
        trainer = HostTrainer(num_envs=self.num_envs)
        budget = {"steps": 10**9, "report_period": self.segment, "resume": resume}
        return trainer.train(self.config, ENVIRONMENT, **budget)


def share(seconds: float) -> float:
    """Returns the share of a run's time that checkpoints take which cost so many seconds each."""
    return seconds / (max(SECONDS, seconds / SHARE) + seconds)


def main() -> None:
    """Prints the cost of checkpoints of small and large runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    for name, work in WORK.items():
        with tempfile.TemporaryDirectory() as folder:
            run = Training(*work, pathlib.Path(folder))
            plain, saving = partial(run.advance, False), partial(run.advance, True)
            times = alternate({"plain": plain, "saving": saving}, args.rounds)
            pairs = zip(times["saving"], times["plain"], strict=True)
            extra = statistics.median((x - y) * run.segment for x, y in pairs)
            save, (read, resume) = statistics.median(run.seconds), run.restore()
            print(
                f"{name}: {run.size() / 1e6:,.1f} MB, saved in {save:.3f} s, a segment takes "
                f"{extra:.3f} s longer\n  {share(max(save, extra)):.3%} of a run's time; read and "
                f"checked in {read:.2f} s, going on after {resume:.2f} s more",
                flush=True,
            )


if __name__ == "__main__":
    main()
