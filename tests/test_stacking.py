"""Stacked agents: the numbers of the environment's own wrapper, each observation kept once."""

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import dqn, ppo, reinforce
from rlws.adders import PrioritisedReplay, Replay, Unrolls
from rlws.environments import Catch, make, spec
from rlws.networks import MLP, nature
from rlws.settings import SettingError
from rlws.stacking import Stacked, StackedAdder
from rlws.trainers import DeviceTrainer, HostTrainer, initial
from rlws.trainers.memory import check_memory
from rlws.types import EnvironmentSpec, Row

SMALL = MLP((8,))
PPO = ppo.Config(backbone=SMALL, unroll_length=8, epochs=2, minibatches=2)
DQN = dqn.Config(
    backbone=SMALL, capacity=60, min_size=20, batch_size=8, period=4, target_period=10, n_step=3,
    prioritised=True,
)  # fmt: skip


def trained(config, name, trainer):
    for report in trainer.train(config, name, seed=3, steps=160, report_period=80):
        params = jax.device_get(report.params)
    return params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "trainer"),
    [
        (PPO, DeviceTrainer(num_envs=2)),
        (DQN, DeviceTrainer(num_envs=2)),
        (DQN, HostTrainer(num_envs=2)),
        (PPO, HostTrainer(num_envs=2)),
    ],
    ids=["ppo device", "dqn device", "dqn host", "ppo host"],
)
def test_an_agent_learns_what_it_does_in_the_wrapper(config, trainer):
    # Episodes are shorter than the stack and end within blocks; the ring goes round twice.
    theirs = trained(config, "jax:Catch,rows=4,columns=3+stack=5", trainer)
    ours = trained(Stacked(config, 5), "jax:Catch,rows=4,columns=3", trainer)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def stream(length, num_envs, mask=False):
    """Returns rows [length, B] whose observation says episode and time, of episodes of 1 to 5."""
    rng, rows = np.random.default_rng(0), []
    left, seen = np.zeros(num_envs, int), np.zeros((num_envs, 2), np.float32)
    for _ in range(length):
        begins = left == 0
        left = np.where(begins, rng.integers(1, 6, num_envs), left - 1)
        anew, onward = seen * [1, 0] + [1, 0], seen + np.array([0, 1])
        seen = np.where(begins[:, None], anew, onward)
        kind = np.where(begins, 0, np.where(left == 0, 2, 1)).astype(np.int32)
        observation = seen.astype(np.float32)
        if mask:
            observation = {"action_mask": observation > 1, "seen": observation}
        reward, discount = np.zeros(num_envs, np.float32), np.ones(num_envs, np.float32)
        rows.append(dm_env.TimeStep(kind, reward, discount, observation))
    timesteps = jax.tree.map(lambda *x: np.stack(x), *rows)
    return Row(timesteps, np.zeros((length, num_envs), np.int32), ())


ADDERS = [
    Unrolls(4),
    Replay(capacity=24, batch_size=64, min_size=1, period=4, length=3),
    Replay(capacity=24, batch_size=64, min_size=1, period=2, n_step=3),
    PrioritisedReplay(capacity=24, batch_size=64, min_size=1, period=8),
]


@pytest.mark.parametrize("adder", ADDERS, ids=repr)
def test_batches_are_stacked_within_episodes(adder):
    count, num_envs = 3, 2
    stacked = StackedAdder(adder, count)
    block = stacked.schedule(num_envs).block_length
    rows = stream(20 * block + 1, num_envs)
    one = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), rows)
    state = stacked.init(one, num_envs)

    @jax.jit
    def step(state, rows, timestep, key):
        state = stacked.add(state, rows, block, timestep)
        return stacked.sample(state, key)

    for t in range(0, 20 * block, block):
        part = jax.tree.map(lambda x, t=t: x[t : t + block], rows)
        after = jax.tree.map(lambda x, t=t: x[t + block], rows.timestep)
        state, batch = step(state, part, after, jax.random.key(t))
        seen = np.asarray(batch.observation)  # [b, T + 1, 2 * count]
        episode, time = seen[..., 0::2], seen[..., 1::2]
        real = np.asarray(batch.weight) > 0
        assert real.any()
        assert (episode == episode[..., -1:]).all()
        now = time[..., -1:]
        expected = np.maximum(now - np.arange(count)[::-1], 0)
        np.testing.assert_array_equal(time, expected)


@pytest.mark.slow
def test_a_mask_is_that_of_now():
    stacked = StackedAdder(Unrolls(4), 3)
    rows = stream(5, 2, mask=True)
    state = stacked.init(jax.tree.map(lambda x: jnp.asarray(x[0, 0]), rows), 2)
    head, last = (jax.tree.map(lambda x, i=i: x[i], rows) for i in (slice(4), 4))
    _, batch = stacked.sample(stacked.add(state, head, 4, last.timestep), jax.random.key(0))
    found = batch.observation["action_mask"]
    np.testing.assert_array_equal(found, rows.timestep.observation["action_mask"].swapaxes(0, 1))
    assert batch.observation["seen"].shape == (2, 5, 6)


def test_nothing_to_add_changes_nothing():
    stacked = StackedAdder(Unrolls(4), 3)
    rows = stream(5, 2)
    init = jax.jit(stacked.init, static_argnums=1)
    state = init(jax.tree.map(lambda x: x[0, 0], rows), 2)
    head, last = (jax.tree.map(lambda x, i=i: x[i], rows) for i in (slice(4), 4))
    after = jax.jit(stacked.add)(state, head, 0, last.timestep)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def atari():
    pictures = specs.BoundedArray((84, 84, 1), np.uint8, 0, 255)
    return EnvironmentSpec(pictures, specs.DiscreteArray(18))


def test_a_million_frames_take_what_they_are():
    config, what = Stacked(dqn.Config(backbone=nature(), capacity=10**6), 4), atari()

    def kept():
        agent = config.make(what)
        row = initial.example_row(agent, what, agent.learner.init(initial.seed_key()).params)
        return agent.adder.init(row, 1)

    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(kept))]
    assert 7.056e9 < sum(sizes) < 7.2e9


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr("rlws.trainers.memory.free_memory", lambda: 7 * 10**9)
    config = Stacked(dqn.Config(backbone=nature(), capacity=10**6), 4)
    with pytest.raises(SettingError, match=r"got 7\.\d GB; lower agent\.agent\.capacity$"):
        check_memory(config, atari(), 1)


def test_episodes_that_wait_for_each_other_are_refused():
    with pytest.raises(SettingError, match=r"waits for episodes to end; .* \+stack=4"):
        Stacked(reinforce.Config()).make(spec(make("jax:CartPole-v1")))


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(SettingError, match=r"stack: .* must have an axis"):
        Stacked(DQN).make(spec(make("gym:FrozenLake-v1")))


def test_the_doctor_looks_within():
    from rlws.diagnose.toy import toy

    assert toy(Stacked(PPO)) == toy(PPO)
    assert Catch().spec() == spec(make("jax:Catch"))
