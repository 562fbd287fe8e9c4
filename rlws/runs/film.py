"""Films of a policy, which play in a notebook."""

import base64
import dataclasses
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rlws.actor import Actor
from rlws.agent import Agent
from rlws.critics import Returns
from rlws.environments.checks import filled
from rlws.networks import Network
from rlws.settings import PositiveInt, SettingError, check
from rlws.tracking import write_video
from rlws.tracking.numbers import beside
from rlws.trainers import core, evaluation
from rlws.types import Params


class Film(NamedTuple):
    """A film in a file."""

    path: pathlib.Path

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.path.read_bytes()).decode()
        return f'<video controls loop autoplay muted src="data:video/mp4;base64,{data}"></video>'


class Picture(NamedTuple):
    """A picture in a file, which a notebook shows."""

    path: pathlib.Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def film(policy: Any, output: pathlib.Path, episodes: int, numbers: bool) -> Film:
    """Films episodes of a policy; see `Policy.film`."""
    check("episodes", PositiveInt, episodes)
    look = numbers_of(policy.agent, policy.params) if numbers else None
    films = (_episode(policy, episode, look) for episode in range(episodes))
    first, rate = next(films)
    others = itertools.chain.from_iterable(frames for frames, _ in films)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Film(write_video(output, itertools.chain(first, others), rate))
    except OSError as error:
        raise SettingError(f"--output must be writable, got {str(output)!r}: {error}") from error


def _episode(policy, episode, look):
    environment, seed = policy.experiment.environment, policy.experiment.seed + episode
    return evaluation.film(policy.agent, policy.params, environment, seed, look=look)


class _Telling(Network):
    """A network with a core that also puts what it answers into a list of its own."""

    told: list[Any]

    def step(self, *args: Any) -> Any:
        outputs, state = super().step(*args)
        self.told.append(outputs)
        return outputs, state


class _Asked(Actor):
    """An actor whose extras are what its network answers."""

    actor: Actor

    def select_action(self, params: Any, timestep: Any, state: Any, key: Any) -> Any:
        told: list[Any] = []
        action, state, _ = _telling(self.actor, told).select_action(params, timestep, state, key)
        return action, state, told[-1]._asdict() if told else {}


def _telling(actor: Actor, told: list[Any]) -> Actor:
    """Returns an actor, maybe within others, whose network tells."""
    if isinstance(inner := getattr(actor, "actor", None), Actor):
        return dataclasses.replace(actor, actor=_telling(inner, told))  # type: ignore[call-arg]
    if not isinstance(network := getattr(actor, "network", None), Network):
        return actor
    if network.recurrent:
        telling: Network = _Telling(*network)
        telling.told = told  # type: ignore[attr-defined]
    else:

        def apply(*args):
            told.append(outputs := network.apply(*args))
            return outputs

        telling = network._replace(apply=apply)
    return dataclasses.replace(actor, network=telling)  # type: ignore[call-arg]


def numbers_of(agent: Agent, params: Params) -> Callable[..., np.ndarray]:
    """Returns what puts numbers beside a picture: the return so far, and what the network says.

    Of a policy over discrete actions those are probabilities, of real ones the mode; then values,
    by action or of the state, in the units of rewards that the learner sees. Of an actor without a
    `Network` there is the return only.
    """

    @jax.jit
    def asked(params, timestep, state):
        actor = _Asked(agent.evaluator)
        key, step = jax.numpy.zeros(2, jax.numpy.uint32), jax.numpy.int32(0)
        return core.act(actor, params, key, step, timestep, state)[2]

    def look(picture, step, total, timestep, state):
        numbers, bars = {"step": float(step), "return": float(total)}, dict[str, list[float]]()
        batch = jax.tree.map(lambda x: np.asarray(x)[None], filled(timestep))
        for name, x in asked(params, batch, state).items():
            if isinstance(x, Returns):  # the mean is told by itself
                continue
            if hasattr(x, "logits"):
                bars["probability"] = jax.nn.softmax(x.logits[0]).tolist()
            elif hasattr(x, "mode"):
                bars["action"] = np.ravel(x.mode()[0]).tolist()
            elif getattr(x, "size", 0) == 1:
                numbers[name] = float(np.ravel(x)[0])
            elif getattr(x, "ndim", 0) == 2:
                bars[name] = x[0].tolist()
        return beside(picture, numbers, bars)

    return look
