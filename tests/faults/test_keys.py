"""Keys that people keep in states: of an environment, an actor and a learner, saved and resumed."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import reinforce
from rlws.actor import PolicyActor
from rlws.environments import JaxEnvironment
from rlws.environments.jax_environment import first, following
from rlws.networks import MLP
from rlws.numerics import trees
from rlws.runs import launch
from rlws.runs.experiment import Evaluation, Experiment
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.types import EnvironmentSpec
from tests.commands.toys import arrays


class State(NamedTuple):
    key: jax.Array
    time: jax.Array


class Noise(JaxEnvironment):
    """Shows what it draws by a key in its state, eight times."""

    def spec(self):
        return EnvironmentSpec(
            specs.Array((2,), np.float32), specs.DiscreteArray(2), max_episode_steps=8
        )

    def reset(self, key):
        key, own = jax.random.split(key)
        return State(key, jnp.int32(0)), first(jax.random.uniform(own, (2,)))

    def step(self, state, action):
        key, own = jax.random.split(state.key)
        time = state.time + 1
        shown = jax.random.uniform(own, (2,))
        return State(key, time), following(shown, shown[0], time >= 8, False)


class Keeper(PolicyActor):
    def initial_state(self):
        return jax.random.key(1)

    def select_action(self, params, timestep, state, key):
        own, following = jax.random.split(state)
        action, _, extras = super().select_action(params, timestep, (), own)
        return action, following, extras


class Learner(reinforce.Reinforce):
    def init(self, key):
        return super().init(key)._replace(extra=(super().init(key).extra, jax.random.key(2)))

    def update(self, state, batch, key):
        extra, own = state.extra
        after, metrics = super().update(state._replace(extra=extra), batch, own)
        return after._replace(extra=(after.extra, jax.random.split(own)[0])), metrics


class Config(reinforce.Config):
    def make(self, spec):
        agent = super().make(spec)
        own = lambda kind, part: kind(
            **{f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        )
        return dataclasses.replace(
            agent, actor=own(Keeper, agent.actor), learner=own(Learner, agent.learner)
        )


@pytest.mark.parametrize("trainer", [DeviceTrainer(num_envs=2), HostTrainer(num_envs=2)])
@pytest.mark.slow
def test_keys_in_states_are_saved_and_resumed(trainer, tmp_path):
    made = Experiment(
        name="keys",
        agent=Config(backbone=MLP((4,)), episodes_per_update=2),
        environment=Noise(),
        trainer=trainer,
        steps=96,
        evaluation=Evaluation(episodes=2),
        directory=str(tmp_path / "whole"),
        quiet=True,
    )
    launch.run(made)
    parts = dataclasses.replace(made, directory=str(tmp_path / "parts"))
    launch.run(dataclasses.replace(parts, steps=40))
    launch.run(dataclasses.replace(parts, resume=True))
    whole, again = (arrays(tmp_path / name) for name in ("whole", "parts"))
    assert whole.keys() == again.keys()
    for name, x in whole.items():
        np.testing.assert_array_equal(x, again[name], err_msg=name)


def test_a_key_comes_back_as_the_key_it_was():
    tree = {"key": jax.random.split(jax.random.key(3, impl="rbg"), 2), "x": jnp.ones(1)}
    found = trees.restore(jax.eval_shape(lambda: tree), trees.flatten(tree))
    assert jax.random.key_impl(found["key"]) == jax.random.key_impl(tree["key"])
    np.testing.assert_array_equal(*map(jax.random.key_data, (found["key"], tree["key"])))
