"""SAC and TD3 from pictures: one encoder, which the critics teach and the policy sees through."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import sac, td3
from rlws.environments import JaxEnvironment
from rlws.networks import CNN, GRU, MLP, BatchNorm
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer, core, evaluation, initial
from rlws.types import Array, EnvironmentSpec, Key, Trajectory

SIZE = 5
ENCODER = CNN((8,), (3,), (1,), MLP((16,), "relu"))
SMALL = dict(backbone=MLP((32,), "relu"), encoder=ENCODER, capacity=5000, batch_size=64)
AGENTS = {
    "sac": sac.Config(learning_rate=3e-3, temperature=0.1, **SMALL),
    "td3": td3.Config(learning_rate=3e-3, critic_learning_rate=3e-3, **SMALL),
}


class State(NamedTuple):
    key: Key
    column: Array


class Aim(JaxEnvironment):
    """Shows a dot in one of five columns; the best action is where it is, from -1 to 1."""

    def spec(self):
        picture = specs.BoundedArray((SIZE, SIZE, 1), np.uint8, 0, 255)
        return EnvironmentSpec(picture, specs.BoundedArray((1,), np.float32, -1.0, 1.0))

    def reset(self, key):
        next_key, key = jax.random.split(key)
        state = State(next_key, jax.random.randint(key, (), 0, SIZE))
        return state, self._timestep(0, 0.0, 1.0, state)

    def step(self, state, action):
        reward = -jnp.abs(action[0] - (state.column / 2 - 1))
        return state, self._timestep(2, reward, 0.0, state)

    def _timestep(self, kind, reward, discount, state):
        picture = jnp.zeros((SIZE, SIZE, 1), jnp.uint8).at[2, state.column].set(255)
        return dm_env.TimeStep(jnp.int32(kind), jnp.float32(reward), jnp.float32(discount), picture)


def made(config):
    agent = config.make(Aim().spec())
    return agent, jax.jit(agent.learner.init)(jax.random.key(0))


def trajectory():
    rng = np.random.default_rng(0)
    return Trajectory(
        observation=rng.integers(0, 256, (4, SIZE, SIZE, 1)).astype(np.uint8),
        action=rng.uniform(-1, 1, (3, 1)).astype(np.float32),
        reward=np.ones(3, np.float32),
        discount=np.ones(3, np.float32),
        weight=np.ones(3, np.float32),
        first=np.zeros(4, bool),
        last=np.zeros(3, bool),
        extras={},
    )


@pytest.mark.parametrize("name", ["sac", pytest.param("td3", marks=pytest.mark.thorough)])
@pytest.mark.slow
def test_the_encoder_learns_from_critics_alone(name):
    agent, state = made(AGENTS[name])
    key = jax.random.key(1)

    def loss(params, name):
        total, metrics = agent.learner.loss(params, trajectory(), key, state)
        return (metrics[name] if name else total).sum()

    gradients = jax.jit(lambda params: [jax.grad(loss)(params, x) for x in ("", "critic_loss")])
    every, critics = ({**x["critic"]["encoder"]} for x in gradients(state.params))
    jax.tree.map(np.testing.assert_array_equal, every, critics)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(every))


@pytest.mark.parametrize("config", AGENTS.values(), ids=AGENTS)
@pytest.mark.slow
def test_the_policy_acts_through_the_encoder_and_targets_have_their_own(config):
    agent, state = made(config)
    params, picture = state.params, trajectory().observation[:1]
    encoder = params["critic"]["encoder"]
    blind = params["critic"] | {"encoder": jax.tree.map(jnp.zeros_like, encoder)}
    ones = (np.ones(1, x) for x in (np.int32, np.float32, np.float32))
    timestep = dm_env.TimeStep(*ones, picture)
    carry, key = initial.initial_actor_state(agent.evaluator, 1), np.zeros(2, np.uint32)
    act = jax.jit(lambda params: core.act(agent.evaluator, params, key, 0, timestep, carry)[0])
    assert act(params) != act(params | {"critic": blind})
    target = state.extra.get("critic", state.extra)
    jax.tree.map(np.testing.assert_array_equal, target["encoder"], encoder)


NORMALISED = MLP((4,), batch_norm=BatchNorm())
ODD = [GRU(ENCODER, 4), CNN((8,), (3,), (1,), NORMALISED)]


@pytest.mark.parametrize("encoder", ODD, ids=["memory", "batch normalisation"])
def test_an_encoder_with_a_state_is_refused(encoder):
    with pytest.raises(SettingError, match="encoder must be without a memory and without batch"):
        sac.Config(encoder=encoder).make(Aim().spec())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trainer"),
    [
        ("sac", DeviceTrainer()),
        pytest.param("sac", HostTrainer(), marks=pytest.mark.thorough),
        pytest.param("td3", HostTrainer(), marks=pytest.mark.thorough),
        pytest.param("td3", DeviceTrainer(), marks=pytest.mark.thorough),
    ],
)
def test_they_learn_to_point_at_what_they_see(name, trainer):
    *_, last = trainer.train(AGENTS[name], Aim(), seed=0, steps=4000)
    evaluate = evaluation.evaluator(last.agent, Aim(), 100)
    assert evaluate(last.params, 0)[0].mean() > -0.15  # of a policy that sees nothing: -0.6
