"""Evaluation: whole episodes of a fixed policy, in environments of their own."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws import environments
from rlws.actor import Actor
from rlws.agent import Agent
from rlws.environments import JaxEnvironment, WithInfo, resolve, rules
from rlws.environments.checks import (
    EnvironmentFault,
    check_actions,
    check_first,
    check_rules,
    check_timestep,
    filled,
)
from rlws.environments.info import episode_info
from rlws.numerics import streams
from rlws.numerics.memo import Remembered
from rlws.numerics.streams import Stream
from rlws.trainers import core, initial
from rlws.trainers.deadline import TIMEOUT, watched
from rlws.trainers.device_block import DeviceBlock
from rlws.trainers.device_run import Keys
from rlws.trainers.host_environments import splitter
from rlws.trainers.program import Program
from rlws.types import Array, Key, Params

MAX_STEPS = 10_000  # of an episode whose environment has no time limit
OWN = (
    "evaluation makes environments of its own: --evaluation.num-envs says how many there are at a "
    "time, and --evaluation.episodes 0 leaves it out"
)
HOST_ENVS = 10  # side by side, unless told otherwise

Evaluate = Callable[[Params, int], tuple[np.ndarray, ...]]


def evaluator(
    agent: Agent,
    environment: Any,
    episodes: int,
    timeout: float = TIMEOUT,
    num_envs: int = HOST_ENVS,
) -> Evaluate:
    """Returns a function of parameters and a seed: returns and lengths of `episodes` episodes.

    What is kept of their info (`environments.WithInfo`) comes after these, one array each.

    With the same seed it plays the same episodes (same initial states, same random numbers), so
    that two calls differ by their policies only. Evaluation has random streams of its own, and what
    an episode draws depends on its number alone. Every episode is played to its end, or, where the
    environment has no time limit, to `MAX_STEPS`: what has not ended by then has the return NaN.

    Args:
      agent: its `evaluator` acts.
      environment: as for `Trainer.train`; a JaxEnvironment is run in one compiled program.
      episodes: how many to play, all begun at once on the device.
      timeout: seconds an environment on a host may take for a step.
      num_envs: how many environments there are at a time, on a host.

    Raises, when it plays:
      EnvironmentFault: an environment does not do what it says, or does not answer.
      AgentFault: the evaluator chooses what no environment can take.
    """
    if not resolve.is_jax(environment):
        return _host_play(agent, environment, episodes, timeout, num_envs)
    environment = resolve.device(environment)
    play = _compiled_play(agent.evaluator, environment, episodes, MAX_STEPS)
    return lambda params, seed: read(play(params, *keys(seed)), environment)


def read(found: "Played", environment: JaxEnvironment) -> tuple[np.ndarray, ...]:
    """Returns what `Evaluate` does of an evaluation on the device; raises what that does."""
    name, where = type(environment).__name__, ", in the evaluation"
    if not found.sound:
        first = _one(jax.device_get(found.first))
        who = lambda t, i: f"{name}, environment {i}{where}, episode 0, step 0"
        check_rules(rules.of_timesteps(environment.spec(), first), who)
        found.block.check(environment.spec(), name, where)
    info = () if found.info is None else tuple(np.asarray(found.info).T)
    return *jax.device_get((found.returns, found.lengths)), *info


def _seed(seed: int) -> int:
    return streams.host_seed(seed, Stream.EVALUATION)


def keys(seed: int) -> tuple[Key, Key]:
    """Returns the keys of actions and of resets of an evaluation."""
    own = _seed(seed)
    return streams.key(own, Stream.ACT), streams.key(own, Stream.ENVIRONMENT)


class Played(NamedTuple):
    """An evaluation on the device."""

    returns: Array  # [episodes]; NaN of those that did not end, or where one of them is not sound
    lengths: Array  # [episodes]
    info: Array | None  # [episodes, k], what is kept of it
    sound: Array  # whether nothing was wrong with actions and timesteps
    first: dm_env.TimeStep  # of each episode
    block: DeviceBlock  # the last step


def device_play(
    evaluator: Actor,
    environment: JaxEnvironment,
    episodes: int,
    limit: int = MAX_STEPS,
    axis: str | None = None,
):
    """Returns a pure function: parameters, keys of actions and of resets to what was `Played`.

    The first episode of each environment is what counts. Where policy or environment does what it
    must not, all end. `limit` is that of steps, where the environment has none; `axis` that of
    members of a population, where several are evaluated at once.
    """
    nothing: Any = None  # learns, so that what learning is set to is none of the program's
    agent = Agent(evaluator, nothing, nothing, evaluator)
    program = Program(agent, environment, episodes, axis)
    spec = environment.spec()
    most = spec.max_episode_steps or limit
    counting = lambda run: (run.episode == 0) & ~run.timestep.last()

    def step(params, run):
        """Returns the run after a step, and it as a block."""
        after, row, _ = program.step(run, params)
        place = run.episode, run.episode_length
        return after, DeviceBlock(_one(row), after.timestep, *place, _one(counting(run)))

    def play(params, act_key, reset_key):
        def playing(carry):
            run, found = carry
            return (run.step < most) & counting(run).any() & found.sound

        def turn(carry):
            run, found = carry
            run, block = step(params, run)
            counts = block.counts[0]
            info = episode_info(environment, run.environment)
            return run, found._replace(
                returns=jnp.where(counts, run.episode_return, found.returns),
                lengths=jnp.where(counts, run.episode_length, found.lengths),
                info=None if info is None else jnp.where(counts[:, None], info, found.info),
                sound=block.sound(spec),
                block=block,
            )

        begun = program.start(Keys(act_key, act_key, reset_key))
        sound = ~jnp.stack(
            [x.broken.any() for x in rules.of_timesteps(spec, _one(begun.timestep), jnp)]
        )
        shapes = jax.eval_shape(step, params, begun)[1]
        block = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        info = episode_info(environment, begun.environment)
        totals = begun.episode_return, begun.episode_length, info
        found = Played(*totals, sound.all(), begun.timestep, block)
        run, found = jax.lax.while_loop(playing, turn, (begun, found))
        ended = found.sound & ~counting(run)
        return found._replace(returns=jnp.where(ended, found.returns, jnp.nan))

    return play


@Remembered
def _compiled_play(evaluator, environment, episodes, limit):
    return jax.jit(device_play(evaluator, environment, episodes, limit))


@Remembered
def _compiled_act(actor):
    """Acts in B episodes, by number, at one step or each at its own; actions and actor states."""

    def act(params, act_key, episode, step, timestep, state):
        return core.act(actor, params, act_key, step, timestep, state, episode)[:2]

    return jax.jit(act)


def _one(tree):
    """Returns a step as a block of one."""
    return jax.tree.map(lambda x: x[None], tree)


def _host_play(
    agent: Agent, environment: Any, episodes: int, timeout: float, num_envs: int
) -> Evaluate:
    act = _compiled_act(agent.evaluator)
    info = len(environment.info) if isinstance(environment, WithInfo) else 0

    def evaluate(params, seed):
        count = min(num_envs, episodes)
        with contextlib.ExitStack() as stack:
            stage = _Stage("evaluation", environment, _seed(seed), count, timeout, stack)
            return _play_all(partial(act, params, keys(seed)[0]), agent, stage, episodes, info)

    return evaluate


class _Stage:
    """Environments on a host in which an evaluator acts; what is wrong is named, as in training."""

    def __init__(self, what, environment, seed, count, timeout, stack, render=False):
        self._asked = stack.enter_context(watched(timeout))
        self._what, self._episode, self._step = what, list(range(count)), [0] * count
        self.envs, self.timesteps = [], []
        for i in range(count):
            self._asked.now = f"environment {i}, in the {what}, when it is made,", 0
            try:
                self.envs.append(resolve.host(environment, seed, i, render))
            except Exception as error:  # there may be no more of them
                error.add_note(OWN)
                raise
            stack.callback(self.envs[i].close)
        self.spec = environments.spec(self.envs[0])
        self._split = splitter(self.spec.actions, self._who)
        for i in range(count):
            self.timesteps.append(self.reset(i, i))
        self._asked.now = None

    def _who(self, i):
        place = f"episode {self._episode[i]}, step {self._step[i]}"
        return f"environment {i}, in the {self._what}, {place}"

    def reset(self, i, episode):
        """Returns the FIRST timestep of an episode, which has this number among all."""
        self._episode[i], self._step[i] = episode, 0
        self._asked.now = self._who(i), 0
        timestep = self.envs[i].reset()
        check_first(self.spec, timestep, self._who(i))
        return timestep

    def step(self, i, action):
        """Takes an action in environment i."""
        self._step[i] += 1
        self._asked.now = self._who(i), self._step[i]
        self.timesteps[i] = timestep = self.envs[i].step(action)
        check_timestep(self.spec, timestep, self._who(i))
        if timestep.first():
            raise EnvironmentFault(f"{self._who(i)}: step_type must be MID or LAST, got FIRST")

    def render(self):
        """Returns a picture of the first environment."""
        self._asked.now = self._who(0), self._step[0]
        return self.envs[0].render()

    def act(self, act, episodes, steps, state):
        """Returns an action for each environment, and the states of the actors."""
        self._asked.now = None
        batch = jax.tree.map(lambda *x: np.stack(x), *map(filled, self.timesteps))
        check_rules(rules.of_timesteps(self.spec, _one(batch)), lambda t, i: self._who(i))
        action, state = act(episodes, steps, batch, state)
        action = jax.tree.map(np.asarray, action)
        check_actions(self.spec.actions, action, axes=1)
        check_rules(rules.of_actions(self.spec.actions, _one(action)), lambda t, i: self._who(i))
        return self._split(action), state


def _play_all(act, agent, stage, episodes, kept):
    limit, count = stage.spec.max_episode_steps or MAX_STEPS, len(stage.envs)
    state = initial.initial_actor_state(agent.evaluator, count)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    info = np.full((kept, episodes), np.nan)
    # Environment i plays episodes i, i + count, ...: which is fixed before any is played.
    playing = np.arange(count)
    while (playing < episodes).any():
        step = np.where(playing < episodes, lengths[np.minimum(playing, episodes - 1)], 0)
        actions, state = stage.act(act, playing, step.astype(np.int32), state)
        for i in range(count):
            episode = playing[i]
            if episode >= episodes:
                continue
            if stage.timesteps[i].last() or (lengths[episode] >= limit):
                if not stage.timesteps[i].last():
                    returns[episode] = np.nan
                if kept:
                    info[:, episode] = stage.envs[i].episode_info()
                playing[i] += count
                stage.timesteps[i] = stage.reset(i, playing[i])
                continue
            stage.step(i, actions[i])
            returns[episode] += stage.timesteps[i].reward
            lengths[episode] += 1
    return returns, lengths, *info


def film(
    agent: Agent,
    params: Params,
    environment: Any,
    seed: int,
    timeout: float = TIMEOUT,
    look: Callable[..., np.ndarray] | None = None,
) -> tuple[Iterator[np.ndarray], float]:
    """Returns the frames of an episode of the evaluator, uint8 [H, W, 3], and frames per second.

    What `look` makes of picture, step, return so far, timestep and actor states (leaves [1, ...]),
    if it is given, is the frame.
    """
    act = partial(_compiled_act(agent.evaluator), params, keys(seed)[0])
    with contextlib.ExitStack() as opening:
        stage = _Stage("film", environment, _seed(seed), 1, timeout, opening, render=True)
        stack = opening.pop_all()

    def frames():
        with stack:
            state, total = initial.initial_actor_state(agent.evaluator, 1), 0.0
            most = stage.spec.max_episode_steps or MAX_STEPS
            for step in range(most + 1):
                picture, timestep = stage.render(), stage.timesteps[0]
                total += timestep.reward or 0.0
                yield look(picture, step, total, timestep, state) if look else picture
                if timestep.last() or step == most:
                    return
                numbers = np.zeros(1, np.int32), np.full(1, step, np.int32)
                (action,), state = stage.act(act, *numbers, state)
                stage.step(0, action)

    return frames(), getattr(stage.envs[0], "frames_per_second", 30.0)
