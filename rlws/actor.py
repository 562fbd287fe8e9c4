"""Acting: pure functions of parameters, one timestep and a key."""

from typing import Any

import dm_env
import jax
import jax.numpy as jnp

from rlws import networks
from rlws.critics import returns
from rlws.networks import Network
from rlws.settings import Fraction, NonNegative, PositiveInt, Settings
from rlws.types import Action, Array, Key, Params

ENVIRONMENTS = "environments"  # the axis trainers vmap an actor over
MAX, PART = 2**31 - 1, 2**11
WORKERS = "workers"  # that of processes that each do so, of size 1 where there is but this one


class Actor(Settings):
    """Chooses actions for ONE environment; trainers vmap, jit and scan it.

    They name that axis "environments", for actors that look at all of them (`jax.lax.psum`), and a
    second one "workers", along which nothing varies: a sum over both counts those of others, too.
    """

    def initial_state(self) -> Any:
        """Returns what the actor carries from step to step; nothing by default."""
        return ()

    def select_action(
        self, params: Params, timestep: dm_env.TimeStep, state: Any, key: Key
    ) -> tuple[Action, Any, dict[str, Any]]:
        """Returns the action, the next actor state and the extras to record with the row.

        Called on every row; on a LAST one the action is ignored. A recurrent actor resets its state
        where `timestep.first()`, and records the one it came with as the extra `core`.
        """
        raise NotImplementedError


class PolicyActor(Actor):
    """Samples from the `policy` head of a network, or takes its mode."""

    network: Network
    greedy: bool = False
    log_prob: bool = False  # record the logarithm of each action's probability

    def initial_state(self) -> Any:
        return self.network.initial_state()

    def select_action(self, params, timestep, state, key):
        observation, first = timestep.observation, timestep.first()
        outputs, next_state = self.network.step(params, observation, first, state)
        extras = {"core": state} if self.network.recurrent else {}
        if self.greedy:
            return outputs.policy.mode(), next_state, extras
        if not self.log_prob:
            return outputs.policy.sample(key), next_state, extras
        action, extras["log_prob"] = outputs.policy.sample_and_log_prob(key)
        return action, next_state, extras


class EpsilonGreedy(Actor):
    """Takes the action of highest value, or with probability epsilon any.

    With a temperature it draws from softmax(Q / temperature) instead (Boltzmann's policy); with
    optimism c the value is Q + c times the deviation of the return.
    """

    network: Network
    start: Fraction
    end: Fraction
    steps: PositiveInt
    greedy: bool = False  # without what networks draw
    temperature: NonNegative = 0.0
    optimism: NonNegative = 0.0

    def initial_state(self):
        return self.network.initial_state(), jnp.int32(0)

    def select_action(self, params, timestep, state, key):
        core, count = state
        count, now = count_steps(count, timestep)
        explore_key, action_key, noise_key, choice_key = jax.random.split(key, 4)
        noise_key = None if self.greedy else noise_key
        outputs, next_core = self.network.step(
            params, timestep.observation, timestep.first(), core, noise_key
        )
        explore = jax.random.uniform(explore_key) < linear(self.start, self.end, self.steps, now)
        anything = networks.random_action(timestep.observation, outputs.q.shape[-1], action_key)
        best = self.choose(outputs, choice_key).astype(jnp.int32)
        action = jnp.where(explore, anything, best)
        return action, (next_core, count), {"core": core} if self.network.recurrent else {}

    def choose(self, outputs, key):
        """Returns the action by what the network says of each."""
        q = outputs.q
        if self.optimism:
            q = q + self.optimism * returns(outputs, "q").deviation()
        return jax.random.categorical(key, q / self.temperature) if self.temperature else q.argmax()


def count_steps(count: Array, timestep: dm_env.TimeStep) -> tuple[Array, Array]:
    """Counts environment steps, for schedules that are functions of them.

    Args:
      count: what this environment has done so far, int32; 0 at first.
      timestep: of this environment.

    Returns:
      The count to carry on, and the steps of all environments so far (float32, as an int32 would
      overflow), where workers are as many steps ahead as this one.
    """
    # In two parts, each of which an int32 holds, so that the order of the sum changes nothing.
    high, low = jax.lax.psum(jnp.divmod(count, PART), (WORKERS, ENVIRONMENTS))
    total = jnp.float32(PART) * high + low
    return jnp.where(count < MAX, count + ~timestep.last(), count), total


def linear(start: float, end: float, steps: float, now: Array) -> Array:
    """Returns the schedule that goes from `start` to `end` within `steps`, and stays there."""
    return start + (end - start) * jnp.clip(now / jnp.float32(steps), 0.0, 1.0)
