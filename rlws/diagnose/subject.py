"""An agent under examination, and experience whose every step can be told from its observations."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import StepType

from rlws.agent import Agent, AgentConfig
from rlws.diagnose import compilation
from rlws.diagnose.tabular import FEATURES
from rlws.learner import Learner, LearnerState
from rlws.settings import SettingError, change
from rlws.trainers import core, initial
from rlws.types import EnvironmentSpec, Params, Row, Trajectory

NUM_ENVS = 2
ROWS = 192


class Experience(NamedTuple):
    """What happens, whatever is done; arrays [ROWS + 1, NUM_ENVS, ...]."""

    timestep: dm_env.TimeStep
    episode: np.ndarray
    t: np.ndarray  # within the episode
    terminated: np.ndarray  # bool


def _experience() -> Experience:
    """Returns episodes of 1 to 7 steps, every other one truncated.

    Observations are (environment, episode, t, 1, noise ...) / 8, rewards random.
    """
    rng = np.random.default_rng(0)
    shape = ROWS + 1, NUM_ENVS
    episode, t, length = (np.zeros(shape, np.int32) for _ in range(3))
    for env in range(NUM_ENVS):
        row, number = 0, 0
        while row <= ROWS:
            steps = 1 + (number * 3 + env) % 7
            rows = slice(row, row + steps + 1)
            count = len(episode[rows, env])
            episode[rows, env], length[rows, env] = number, steps
            t[rows, env] = np.arange(count)
            row, number = row + steps + 1, number + 1
    step_type = np.where(t == 0, StepType.FIRST, np.where(t == length, StepType.LAST, StepType.MID))
    terminated = (step_type == StepType.LAST) & (episode % 2 == 0)
    observation = rng.normal(size=(*shape, FEATURES))
    observation[..., 0], observation[..., 1], observation[..., 2] = np.arange(NUM_ENVS), episode, t
    observation[..., 3] = 1
    timestep = dm_env.TimeStep(
        step_type.astype(np.int32),
        np.where(t == 0, 0, rng.normal(size=shape)).astype(np.float32),
        np.float32(~terminated),
        (observation / 8).astype(np.float32),
    )
    return Experience(timestep, episode, t, terminated)


EXPERIENCE = _experience()


@dataclasses.dataclass(frozen=True)
class Subject:
    """An agent, with what the checks of its parts look at; compiled and played when asked for.

    It learns from whole batches at once, in any order.
    """

    config: AgentConfig
    spec: EnvironmentSpec  # of observations [FEATURES]
    discount: float | None = None  # its gamma, if known

    @cached_property
    def agent(self) -> Agent:
        """The agent."""
        return self.config.make(self.spec)

    @cached_property
    def init(self) -> Callable[[int], core.State]:
        """Returns the state before the first step, of a seed."""
        return compilation.jit(lambda seed: initial.init(self.agent, self.spec, seed, NUM_ENVS))

    @cached_property
    def state(self) -> core.State:
        """The state before the first step of seed 0."""
        return self.init(0)

    def learner_for(self, batch: Trajectory) -> LearnerState:
        """Returns the learner's state of seed 0, before batches of the shapes of this one."""
        learner = self.agent.learner
        if type(learner).begin is Learner.begin:  # it does not look at them
            return self.state.learner
        begin = lambda batch: initial.begin_learner(
            learner, learner.init(initial.init_key(0)), batch
        )
        return compilation.jit(begin)(batch)

    @cached_property
    def learn(self) -> Any:
        """`Learner.learn`, compiled."""
        return compilation.jit(self.agent.learner.learn)

    def loss_and_gradient(self, batch: Trajectory, seed: int = 0) -> np.ndarray:
        """Returns loss and gradient norm of an update; of one that tells none, how far it moved."""
        before = self.learner_for(batch)
        after, metrics = self.learn(before, batch, jax.random.key(seed))
        if "gradient_norm" in metrics:
            return np.array([metrics.get("loss", 0.0), metrics["gradient_norm"]])
        moved = jax.tree.map(
            lambda x, y: np.sum(np.square(np.float64(x) - y)), after[:2], before[:2]
        )
        return np.array([metrics.get("loss", 0.0), np.sqrt(sum(jax.tree.leaves(moved)))])

    def learn_with(self, name: str, value: Any) -> Any:
        """Returns `learn` of the agent with another value of a setting; None: it has no such."""
        if name not in {field.name for field in dataclasses.fields(self.config)}:
            return None
        if getattr(self.config, name) == value:
            return self.learn
        try:
            other = change(self.config, {name: value}).make(self.spec)
        except SettingError:  # it means something else to this agent
            return None
        return compilation.jit(other.learner.learn)

    @cached_property
    def played(self) -> tuple[Row, list[Trajectory]]:
        """What it makes of the experience before it has learned anything, as `play` says it."""
        return self.play(self.state.learner.params)

    @cached_property
    def play(self) -> Callable[[Params], tuple[Row, list[Trajectory]]]:
        """Returns what it makes of the experience, of parameters.

        Rows have leaves [ROWS, NUM_ENVS, ...], batches of the adder [B, T, ...]; there may be none.
        """
        actor, adder = self.agent.actor, self.agent.adder
        head = jax.tree.map(lambda x: x[:-1], EXPERIENCE.timestep)
        length = adder.schedule(NUM_ENVS).block_length or 8

        def step(params, state, inputs):
            row, now = inputs
            key = jnp.zeros(2, jnp.uint32)
            action, state, extras = core.act(actor, params, key, row, now, state)
            return state, Row(now, action, extras)

        start = initial.initial_actor_state(actor, NUM_ENVS)
        inputs = jnp.arange(ROWS), head
        act = compilation.jit(lambda params: jax.lax.scan(partial(step, params), start, inputs)[1])
        add, sample = compilation.jit(adder.add), compilation.jit(adder.sample)

        def play(params):
            state, batches, rows = self.state.adder, [], jax.device_get(act(params))
            for number, begin in enumerate(range(0, ROWS - length + 1, length)):
                end = begin + length
                block, following = (
                    jax.tree.map(lambda x, at=at: x[at], tree)
                    for at, tree in ((slice(begin, end), rows), (end, EXPERIENCE.timestep))
                )
                state = add(state, block, length, following)
                if adder.ready(state):
                    state, batch = sample(state, jax.random.key(number))
                    batches.append(jax.device_get(batch))
            return rows, batches

        return play

    @property
    def batches(self) -> list[Trajectory]:
        """The batches of `played`."""
        return self.played[1]
