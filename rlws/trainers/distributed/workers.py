"""The workers of a run, as the learner sees them: asked for blocks, replaced where they die."""

import time
from collections import deque
from typing import Any, NamedTuple

from rlws.environments.checks import EnvironmentFault
from rlws.settings import SettingError
from rlws.tracking.stderr import warn
from rlws.trainers.distributed import cluster
from rlws.trainers.distributed.sources import Played, Task
from rlws.trainers.trainer import Snapshot

TRIES = 3  # in a row in which a worker may die, or fail to begin, without a block
PATIENCE = 60.0  # seconds in which a process must say that it is there
PERIOD = 0.2  # seconds between two looks at signals


class WorkerLost(RuntimeError):
    """A worker dies again and again; what was learned is in the last checkpoint."""

    status = 8  # of a process that ends because of it


class Call(NamedTuple):
    """A block that a worker was asked for."""

    params: Any  # a reference to what it acts by
    learned: bool
    version: int  # of the parameters
    result: Any  # a reference


class Block(NamedTuple):
    """A block that a worker has played."""

    worker: int
    version: int  # of the parameters it was played by
    played: Played


class _Worker:
    def __init__(self, index: int, task: Task, saved: Snapshot | None):
        self.index, self.task, self.saved = index, task, saved  # where its last block left it
        self.handle: Any = None
        self.calls: deque[Call] = deque()
        self.failures, self.reason = 0, ""
        self.heard: tuple[str, int] | None = None  # what it said it was doing
        self.since = 0.0  # when it began that
        self.asking: Any = None  # a reference to its answer
        self.told = False  # whether it was said that it does not answer
        self.steps, self.seconds = 0, 0.0  # since metrics were read


class Workers:
    """Workers, each with calls in flight, and the blocks that have come.

    A worker is a function of its task, of where it was saved and of its calls. One that died is
    made anew where its last block left it, and asked for the same again: nothing is counted twice,
    and where environments can be replayed nothing changes.

    Attributes:
      arrived: the blocks of each worker that nobody took yet, oldest first.
      restarts: workers made anew so far.
    """

    def __init__(self, ray: Any, trainer: Any, tasks: list[Task], saved: list[Snapshot | None]):
        """Begins those of a DistributedTrainer, each where it was saved."""
        from rlws.trainers.distributed.worker import Worker  # which imports Ray

        self._ray, self._timeout = ray, trainer.environment_timeout
        self._cpus = cpus = trainer.cpus_per_actor
        self._remote = ray.remote(
            num_cpus=cpus, concurrency_groups={"watch": 1}, runtime_env=cluster.process()
        )(Worker)
        self._registered = cluster.registered()
        self._all = [*map(_Worker, range(len(tasks)), tasks, saved)]
        self.arrived: list[deque[Block]] = [deque() for _ in tasks]
        self.restarts = 0
        for worker in self._all:
            self._make(worker)

    def send(self, index: int, params: Any, learned: bool, version: int) -> None:
        """Asks a worker for one more block, by these parameters (a reference to them)."""
        worker = self._all[index]
        result = worker.handle.play.remote(params, learned)
        worker.calls.append(Call(params, learned, version, result))

    def in_flight(self) -> list[int]:
        """Returns the versions of parameters that are being acted by, or are to be."""
        return [call.version for worker in self._all for call in worker.calls]

    def collect(self) -> None:
        """Waits a moment for blocks; replaces who died.

        Raises:
          WorkerLost: a worker dies again and again, or cannot be made.
          EnvironmentFault: an environment does not answer, or not as it should.
          Exception: what an environment raised.
        """
        first = {worker.calls[0].result: worker for worker in self._all if worker.calls}
        ready, _ = self._ray.wait([*first], num_returns=1, timeout=PERIOD)
        for worker in [first[result] for result in ready] or self._all:
            self._receive(worker)
        if not ready:
            for worker in first.values():
                if worker.calls:
                    self._watch(worker)

    def metrics(self) -> dict[str, float]:
        """Returns how the workers did since the last call."""
        found: dict[str, float] = {"worker_restarts": self.restarts}
        for i, worker in enumerate(self._all):
            if worker.seconds:
                found[f"worker_{i}_steps_per_second"] = worker.steps / worker.seconds
            worker.steps, worker.seconds = 0, 0.0
        total, free = self._ray.cluster_resources(), self._ray.available_resources()
        name = "object_store_memory"
        used = total.get(name, 0.0) - free.get(name, total.get(name, 0.0))
        return {**found, "object_store_mb": used / 2**20}

    def close(self) -> None:
        """Ends all workers."""
        for worker in self._all:
            self._ray.kill(worker.handle)

    def _make(self, worker: _Worker) -> None:
        worker.handle = self._remote.remote(worker.task, worker.saved, self._registered)
        worker.heard, worker.since = None, time.monotonic()
        worker.asking, worker.told = None, False
        calls, worker.calls = worker.calls, deque()
        for call in calls:
            self.send(worker.index, *call[:3])

    def _receive(self, worker: _Worker) -> None:
        """Takes what has come from a worker."""
        errors = self._ray.exceptions
        while worker.calls:
            call = worker.calls[0]
            if not self._ray.wait([call.result], timeout=0)[0]:
                return
            try:
                found = self._ray.get(call.result)
            except errors.RayTaskError:
                raise  # ours
            except errors.RayError as error:
                self._again(worker, f"died: {error}")
                return
            if not isinstance(found, Played):
                self._failed(worker, found)
                return
            worker.calls.popleft()
            worker.saved, worker.failures = found.after, 0
            worker.heard, worker.since = None, time.monotonic()
            worker.steps += int((found.rows.timestep.step_type[: found.length] != 2).sum())
            worker.seconds += found.seconds
            self.arrived[worker.index].append(Block(worker.index, call.version, found))

    def _failed(self, worker: _Worker, failure: Any) -> None:
        known = isinstance(failure.error, SettingError)
        if failure.making and not known:  # a licence server may be back in a moment
            self._again(worker, f"could not begin: {failure.text}", failure.trace)
            return
        if known:
            raise type(failure.error)(f"worker {worker.index}: {failure.error}")
        error = failure.error or RuntimeError(failure.text)
        who = f"in worker {worker.index}, whose environments count from 0"
        error.add_note(f"{who}:\n{failure.trace}")
        raise error

    def _again(self, worker: _Worker, reason: str, trace: str = "") -> None:
        worker.failures += 1
        reason = " ".join(reason.split())[:400]
        worker.reason = worker.reason if worker.failures > 1 else reason
        if worker.failures >= TRIES:
            error = WorkerLost(
                f"worker {worker.index} failed {TRIES} times in a row; at first it "
                f"{worker.reason}; mend what it plays in, then go on from the last checkpoint"
            )
            error.add_note(trace)
            raise error
        self.restarts += 1
        warn(f"worker {worker.index} {reason}; it is begun anew where its last block left it")
        self._ray.kill(worker.handle)
        self._make(worker)

    def _watch(self, worker: _Worker) -> None:
        """Looks whether a worker that lets us wait does anything."""
        waited = time.monotonic() - worker.since
        if worker.asking is None:
            if waited > self._timeout / 4:
                worker.asking = worker.handle.asked.remote(), time.monotonic()
            return
        answer, when = worker.asking
        if not self._ray.wait([answer], timeout=0)[0]:
            silent, most = time.monotonic() - when, max(self._timeout, PATIENCE)
            if silent > most:
                self._silent(worker)
            elif silent > PATIENCE and not worker.told:
                worker.told = True
                warn(
                    f"worker {worker.index} does not answer, not even whether it plays; after "
                    f"--trainer.environment-timeout {most:g} s it is begun anew"
                )
            return
        worker.asking = None
        try:
            now = self._ray.get(answer)
        except self._ray.exceptions.RayError:  # its block will say the same
            return
        if now is None or now != worker.heard:
            worker.heard, worker.since = now, time.monotonic()
        elif waited >= self._timeout:
            raise EnvironmentFault(
                f"worker {worker.index}: {now[0]} must answer within environment_timeout="
                f"{self._timeout:g} s, got nothing; mend it, or raise --trainer.environment-timeout"
            )

    def _silent(self, worker: _Worker) -> None:
        free, all_ = self._ray.available_resources(), self._ray.cluster_resources()
        if free.get("CPU", 0.0) < self._cpus and worker.saved is None:
            raise SettingError(
                f"cpus_per_actor={self._cpus:g} must be free for worker {worker.index}, the "
                f"cluster has {free.get('CPU', 0):g} of {all_.get('CPU', 0):g}; lower num_actors "
                "or cpus_per_actor, or add machines"
            )
        self._again(worker, "did not answer")
