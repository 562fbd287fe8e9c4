"""Evaluation on the device: whole episodes of a fixed policy, in one compiled program."""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.actor import Actor
from rlws.agent import Agent
from rlws.environments import JaxEnvironment, rules
from rlws.environments.info import episode_info
from rlws.numerics.memo import Remembered
from rlws.trainers.blocks import DeviceBlock, check_begun, kept
from rlws.trainers.device_run import Keys
from rlws.trainers.program import Program
from rlws.types import Array


class Played(NamedTuple):
    """An evaluation on the device."""

    returns: Array  # [episodes]; NaN of those that did not end, or where one of them is not sound
    lengths: Array  # [episodes]
    info: Array | None  # [episodes, k], what is kept of it
    sound: Array  # whether nothing was wrong with actions and timesteps
    first: dm_env.TimeStep  # of each episode
    block: DeviceBlock  # the last step

    def read(self, environment: JaxEnvironment) -> tuple[np.ndarray, ...]:
        """Returns what `evaluation.evaluator` does; raises what that does."""
        name, where = type(environment).__name__, ", in the evaluation"
        if not self.sound:
            check_begun(environment.spec(), self.first, name, where)
            self.block.check(environment.spec(), name, where)
        info = () if self.info is None else tuple(np.asarray(self.info).T)
        return *jax.device_get((self.returns, self.lengths)), *info


def device_play(
    evaluator: Actor,
    environment: JaxEnvironment,
    episodes: int,
    limit: int,
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
        sound = kept(rules.of_timesteps(spec, _one(begun.timestep), jnp))
        shapes = jax.eval_shape(step, params, begun)[1]
        block = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        info = episode_info(environment, begun.environment)
        totals = begun.episode_return, begun.episode_length, info
        found = Played(*totals, sound, begun.timestep, block)
        run, found = jax.lax.while_loop(playing, turn, (begun, found))
        ended = found.sound & ~counting(run)
        return found._replace(returns=jnp.where(ended, found.returns, jnp.nan))

    return play


@Remembered
def compiled_play(evaluator: Actor, environment: JaxEnvironment, episodes: int, limit: int) -> Any:
    """Returns `device_play` compiled; of equal arguments, the same as before."""
    return jax.jit(device_play(evaluator, environment, episodes, limit))


def _one(tree):
    """Returns a step as a block of one."""
    return jax.tree.map(lambda x: x[None], tree)
