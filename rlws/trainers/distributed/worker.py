"""The process of a worker. Imported by Ray there, and here only once Ray is wanted."""

import contextlib
import functools
import pickle
import time
import traceback
from typing import Any, NamedTuple, NoReturn

import ray

from rlws import environments
from rlws.environments import registry, resolve
from rlws.numerics.cache import enable_cache
from rlws.trainers import evaluation
from rlws.trainers.distributed.sources import Played, Source, Task, make_source
from rlws.trainers.trainer import Snapshot


class Failure(NamedTuple):
    """What a worker could not do; it lives on."""

    making: bool  # its environments, or playing in them
    error: Exception | None  # if it can be sent
    text: str  # the error in a line
    trace: str


class Worker:
    """Plays blocks, one call after the other; another thread answers how far it is."""

    def __init__(self, task: Task, saved: Snapshot | None, registered: dict[str, bytes]):
        self._task, self._saved = task, saved
        self._source: Source | None = None
        _register(registered)

    def play(self, params: list[Any], learned: bool) -> Played | Failure:
        """Returns the next block, see `Source.play`."""
        began = time.perf_counter()
        try:
            if self._source is None:
                self._source = make_source(self._task, self._saved)
            played = self._source.play(params, learned)
        except Exception as error:
            return _failure(error, self._source is None)
        return played._replace(seconds=time.perf_counter() - began)

    @ray.method(concurrency_group="watch")
    def asked(self) -> tuple[str, int] | None:
        """Returns which environment is being stepped, and at which step; None: none is."""
        if self._source is None:
            return "an environment, when it is made or first reset,", 0
        return self._source.asked()


class Evaluator:
    """Evaluates, in a process of its own."""

    def __init__(
        self,
        config: Any,
        environment: Any,
        episodes: int,
        timeout: float,
        num_envs: int,
        registered: dict[str, bytes],
    ):
        enable_cache()
        _register(registered)
        with contextlib.closing(resolve.host(environment, 0, 0)) as one:
            agent = config.make(environments.spec(one))
        self._evaluate = evaluation.evaluator(agent, environment, episodes, timeout, num_envs)

    def evaluate(self, params: Any, seed: int) -> Any:
        """Returns returns and lengths."""
        return self._evaluate(params, seed)


def _register(registered: dict[str, bytes]) -> None:
    for name, packed in registered.items():
        try:
            factory = pickle.loads(packed)
        except Exception as error:  # of an environment that nobody here may ask for
            factory = functools.partial(_raise, error)
        registry.register(name, factory)


def _raise(error: Exception) -> NoReturn:
    raise error


def _failure(error: Exception, making: bool) -> Failure:
    text = f"{type(error).__name__}: {error}"
    trace = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class of errors lacks
        return Failure(making, None, text, trace)
    return Failure(making, error, text, trace)
