"""A distributed run: which blocks make a batch, what is learned when, and where all stand."""

from collections import deque
from typing import Any

import numpy as np

from rlws.environments import WithInfo
from rlws.numerics import trees
from rlws.trainers.acting import compile_acting
from rlws.trainers.distributed.joining import Joined, join
from rlws.trainers.distributed.sources import Task, spec_of
from rlws.trainers.distributed.workers import Workers
from rlws.trainers.learning import Learning
from rlws.trainers.reports import Counts, Reports
from rlws.trainers.rollout import Ends
from rlws.trainers.trainer import Snapshot, limits

BLOCK = 64  # rows of a block where the adder has no wish and several workers play


class Run:
    """A run: workers, the learner, and where both stand."""

    def __init__(self, trainer, ray, stack, config, environment, seed, control):
        self._trainer, self._ray = trainer, ray
        count, envs = trainer.num_actors, trainer.num_envs
        self._control, self._budget = control, limits(control.steps, control.episodes)
        resume: Any = control.resume or (None, None)
        arrays, facts = resume
        shared = seed, envs, 0, count, trainer.vectorization
        task = Task(config, environment, *shared, Ends(BLOCK, np.inf))
        spec = spec_of(task)
        agent = config.make(spec)
        trainer.check_agent(agent)
        ends = self._ends(agent)
        tasks = [task._replace(first=i * envs, ends=ends) for i in range(count)]
        self._consumed: list[Snapshot | None] = [None] * count
        if facts is not None:
            self._consumed = [_saved(arrays, known, i) for i, known in enumerate(facts["workers"])]
        self._workers = Workers(ray, trainer, tasks, self._consumed)
        stack.callback(self._workers.close)
        how = trainer.columns, control, trainer.num_devices
        self._learning = Learning(agent, spec, seed, *how)
        self._read = compile_acting(agent, spec, envs).params.take
        info = environment.info if isinstance(environment, WithInfo) else ()
        self._counts = Counts(len(info))
        self._cut_short = 0, 0  # steps and episodes of a block in which the budget was spent
        self._reports = Reports(agent, self._counts, self._learning, control, self._save)
        self._version = 0
        self._lags: list[int] = []
        self._waiting: list[int] = []
        # By which parameters the blocks are played that nobody took yet, oldest first, and whether
        # there had been a batch before. All workers have the same calls, where all are waited for.
        self._rounds: deque[tuple[Any, bool]] = deque()
        if facts is not None:
            self._counts.steps, self._counts.episodes = facts["steps"], facts["episodes"]
            self._counts.ended += map(tuple, arrays["ended"].tolist())
        self._begin(arrays, facts)

    def _ends(self, agent) -> Ends:
        """Returns when a block ends."""
        if self._trainer.num_actors == 1 and self._trainer.vectorization != "device":
            ends = Ends.of(agent, self._trainer.num_envs)
            # One that plays ahead does not know whether there was a batch.
            return ends if not self._trainer.lookahead else ends._replace(episodes=np.inf)
        block_length = agent.adder.schedule(self._trainer.columns).block_length
        return Ends(block_length or BLOCK, np.inf)

    def _begin(self, arrays, facts) -> None:
        """Has each worker play as far ahead as it may."""
        now = self._acting()
        for ahead in range(1 + self._trainer.lookahead):
            params, learned = now, True
            if facts is not None and facts["learned"]:
                learned = facts["learned"][ahead]
                if ahead < self._trainer.lookahead:
                    params = trees.restore(now, arrays, f"acting/{ahead}")
            self._send(range(self._trainer.num_actors), params, learned)

    def _acting(self) -> list[np.ndarray]:
        """Returns what is read of the learner's parameters; a copy, as it updates them in place."""
        return [np.array(x) for x in self._read(self._learning.params)]

    def _send(self, workers, params, learned: bool) -> None:
        reference = self._ray.put(params)
        if self._trainer.wait_for == "all":
            self._rounds.append((params, learned))
        for index in workers:
            self._workers.send(index, reference, learned, self._version)

    def reports(self):
        """Yields the progress of the run."""
        while True:
            due = self._learning.halted or self._reports.due()
            blocks = None if due else self._gather()
            if blocks is None:
                report = self._reports.make()
                if report.metrics:
                    report.metrics.update(self._metrics())
                yield report
                if report.spent or report.halted or report.stopped:
                    return
                self._reports.next()
                continue
            joined = join([block.played for block in blocks])
            if not self._cut(joined):
                self._take(blocks, joined)

    def _gather(self):
        """Returns the blocks of the next batch; None: the run shall stop where it is."""
        workers, trainer = self._workers, self._trainer
        while not self._control.stop():
            if trainer.wait_for == "all":
                if all(workers.arrived):
                    self._waiting.append(sum(map(len, workers.arrived)) - len(workers.arrived))
                    return [blocks.popleft() for blocks in workers.arrived]
            elif self._fresh_enough():
                self._waiting.append(sum(map(len, workers.arrived)) - trainer.batch_blocks)
                oldest = lambda: min(filter(None, workers.arrived), key=lambda x: x[0].version)
                return [oldest().popleft() for _ in range(trainer.batch_blocks)]
            workers.collect()
        return None

    def _fresh_enough(self) -> bool:
        """Returns whether there is a batch, and learning from it leaves no other one too old.

        Else whoever still acts by parameters of long ago has to be waited for.
        """
        count, limit = self._trainer.batch_blocks, self._trainer.lag_limit
        arrived = sorted(block.version for blocks in self._workers.arrived for block in blocks)
        if len(arrived) < count:
            return False
        # In the order, and with the versions, in which they will be learned from at best.
        left = enumerate(sorted(arrived[count:] + self._workers.in_flight()))
        return all(self._version + 1 + i // count - version <= limit for i, version in left)

    def _cut(self, joined: Joined) -> bool:
        """Ends the run within a block, where its budget is spent there: nothing of it is learned.

        The run stands before that block, and a resumed one with a larger budget plays it again.
        """
        counts = self._counts
        ends = np.bincount(joined.ended[:, 0].astype(int), minlength=joined.length)
        spent = (counts.steps + joined.done >= self._budget[0]) | (
            counts.episodes + np.cumsum(ends) >= self._budget[1]
        )
        if not spent[:-1].any():
            return False
        row = int(np.argmax(spent))
        self._cut_short = self._count(joined, row)
        return True

    def _count(self, joined: Joined, row: int) -> tuple[int, int]:
        """Counts what there is up to and including this row; returns its steps and episodes."""
        ended = joined.ended[joined.ended[:, 0] <= row]
        self._counts.steps += (steps := int(joined.done[row]))
        self._counts.episodes += len(ended)
        self._counts.ended += map(tuple, ended[:, 1:].tolist())
        return steps, len(ended)

    def _take(self, blocks, joined: Joined) -> None:
        """Learns from the blocks, and asks those who played them for the next."""
        learned = self._learning.take(joined.rows, joined.length, joined.timestep)
        self._count(joined, joined.length - 1)
        for block in blocks:
            self._consumed[block.worker] = block.played.after
            self._lags.append(self._version - block.version)
            who = f"worker {block.worker}"
            self._counts.warnings += [f"{who}: {text}" for text in block.played.warnings]
        self._version += 1
        params = self._rounds[-1][0] if self._rounds and not learned else None
        if params is None:
            params = self._acting()
        if self._rounds:
            self._rounds.popleft()
        self._send([block.worker for block in blocks], params, learned)

    def _metrics(self) -> dict[str, float]:
        lags, waiting = self._lags or [0], self._waiting or [0]
        found = {
            "parameter_lag": float(np.mean(lags)),
            "parameter_lag_max": float(max(lags)),
            "blocks_waiting": float(np.mean(waiting)),
        }
        self._lags, self._waiting = [], []
        return found | self._workers.metrics()

    def _save(self, ended) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns where the workers stand, and what was counted."""
        cut_steps, cut_episodes = self._cut_short  # the run stands before that block
        known: dict[str, Any] = {
            "steps": self._counts.steps - cut_steps,
            "episodes": self._counts.episodes - cut_episodes,
            "learned": [learned for _, learned in self._rounds],
            "workers": [None if s is None else s.facts for s in self._consumed],
        }
        older = [*self._rounds][:-1]
        arrays = {
            "ended": self._counts.table(ended[: len(ended) - cut_episodes]),
            "acting": {str(i): params for i, (params, _) in enumerate(older)},
            "worker": {str(i): s.arrays for i, s in enumerate(self._consumed) if s is not None},
        }
        return arrays, known


def _saved(arrays, facts, index: int) -> Snapshot | None:
    """Returns where a worker was saved; None: before its first block."""
    if facts is None:
        return None
    place = f"worker/{index}/"
    own = {name[len(place) :]: x for name, x in arrays.items() if name.startswith(place)}
    return Snapshot(own, facts)
