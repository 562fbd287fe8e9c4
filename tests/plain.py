"""An agent with hardly anything to compile, for tests of what is around agents."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from dm_env import specs

from rlws.actor import Actor
from rlws.adders import Replay, Unrolls
from rlws.adders.adder import Adder
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.networks import Network


class Config(AgentConfig):
    """Acts at random, whatever an action is, and learns one number, from all that it sees."""

    adder: Adder

    def make(self, spec):
        network = Network(lambda key: {"number": jnp.float32(0)}, lambda params, x: x)
        actor = AtRandom(spec.actions)
        return Agent(actor, Summing(network, optax.identity()), self.adder, actor)


class AtRandom(Actor):
    """Draws each part of an action uniformly from what its spec allows, or from a normal."""

    actions: object

    def select_action(self, params, timestep, state, key):
        leaves, structure = jax.tree.flatten(self.actions)
        keys = jax.random.split(key, len(leaves))
        drawn = [_draw(key, spec) for key, spec in zip(keys, leaves, strict=True)]
        return structure.unflatten(drawn), state, {}


class Summing(Learner):
    def update(self, state, batch, key):
        seen = (batch.observation, batch.action, batch.reward, batch.discount)
        sum_ = sum(jnp.sum(jnp.float32(x)) for x in jax.tree.leaves(seen))
        number = 0.9 * state.params["number"] + 0.1 * sum_
        return state._replace(params={"number": number}), {"loss": number}


def _draw(key, spec):
    kind = jax.dtypes.canonicalize_dtype(spec.dtype)
    if isinstance(spec, specs.DiscreteArray):
        return jax.random.randint(key, (), 0, spec.num_values, kind)
    if isinstance(spec, specs.BoundedArray):
        low, high = (np.asarray(x, np.float64) for x in (spec.minimum, spec.maximum))
        if np.isfinite(high - low).all():
            return jax.random.uniform(key, spec.shape, kind, kind.type(low), kind.type(high))
    return jax.random.normal(key, spec.shape, kind)


IN_BLOCKS = Config(Unrolls(8))
ROW_BY_ROW = Config(Replay(capacity=64, batch_size=4, min_size=32))
