"""The two trainers run the same algorithm: same actions, episodes, batches and parameters."""

import dataclasses

import jax
import numpy as np
import pytest

from agents_zoo import reinforce
from rlws.agent import AgentConfig
from rlws.trainers import DeviceTrainer, HostTrainer

pytestmark = [pytest.mark.exact, pytest.mark.slow]

UPDATES = 20
EPISODES_PER_UPDATE = 4


def recording(config, batches):
    """Returns the configuration of the same agent, appending each batch it learns from."""

    class Recording(reinforce.Reinforce):
        def update(self, state, batch, key):
            jax.debug.callback(lambda b: batches.append(jax.tree.map(np.array, b)), batch)
            return super().update(state, batch, key)

    class Config(AgentConfig):
        inner: AgentConfig

        def make(self, spec):
            agent = self.inner.make(spec)
            fields = {
                f.name: getattr(agent.learner, f.name) for f in dataclasses.fields(agent.learner)
            }
            return dataclasses.replace(agent, learner=Recording(**fields))

    return Config(config)


def run(trainer, seed=0, config=None, episodes=UPDATES * EPISODES_PER_UPDATE + 1):
    """Returns batches, the returns of all episodes, first and last parameters, last progress."""
    batches, returns, first = [], [], None
    config = recording(config or reinforce.Config(episodes_per_update=EPISODES_PER_UPDATE), batches)
    for progress in trainer.train(config, "jax:CartPole-v1", seed=seed, episodes=episodes):
        returns.extend(progress.returns)
        first = jax.device_get(progress.params) if first is None else first
    jax.effects_barrier()
    return batches, returns, first, jax.device_get(progress.params), progress


@pytest.fixture(scope="module")
def host():
    return run(HostTrainer())


@pytest.fixture(scope="module")
def device():
    return run(DeviceTrainer())


def test_same_number_of_updates(host, device):
    assert len(host[0]) == len(device[0]) == host[4].updates == device[4].updates == UPDATES


def test_initial_parameters_are_bitwise_equal(host, device):
    jax.tree.map(np.testing.assert_array_equal, host[2], device[2])


def test_episodes_are_equal(host, device):
    np.testing.assert_array_equal(host[1], device[1])


def test_steps_are_counted_alike(host, device):
    assert host[4].steps == device[4].steps == sum(host[1])
    assert host[4].episodes == device[4].episodes


def test_actions_and_masks_are_equal_and_batches_to_float_tolerance(host, device):
    for ours, theirs in zip(host[0], device[0], strict=True):
        ours, theirs = (jax.vmap(type(b).masked)(b) for b in (ours, theirs))
        for name in ("action", "weight", "reward", "discount", "last"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
        # The physics are compiled twice, alone and within the scan, and rounded differently.
        np.testing.assert_allclose(ours.observation, theirs.observation, atol=1e-5)


def test_parameters_agree_after_twenty_updates(host, device):
    # Not bitwise: XLA orders the sums of matrix products differently in the two programs, and Adam
    # divides by small second moments at first.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), host[3], device[3])


@pytest.mark.parametrize("trainer", [HostTrainer(), DeviceTrainer()], ids=["host", "device"])
def test_same_seed_twice_is_bitwise_equal(trainer, request):
    before = request.getfixturevalue(type(trainer).__name__.removesuffix("Trainer").lower())
    again = run(trainer)
    jax.tree.map(np.testing.assert_array_equal, before[3], again[3])
    assert before[1] == again[1]


def test_two_seeds_differ_in_parameters_actions_and_episodes(device):
    other = run(DeviceTrainer(), seed=1)
    for mine, its in zip(jax.tree.leaves(device[2]), jax.tree.leaves(other[2]), strict=True):
        assert mine.ndim == 1 or not np.allclose(mine, its)  # biases start at zero
    assert device[1] != other[1]
    for mine, its in zip(device[0], other[0], strict=True):
        assert not np.array_equal(mine.action, its.action)
        assert not np.allclose(mine.observation[:, 0], its.observation[:, 0])


@pytest.mark.parametrize(
    "config",
    [
        reinforce.Config(episodes_per_update=3),
        pytest.param(
            reinforce.Config(episodes_per_update=3, max_episode_length=12),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["surplus dropped", "long episodes cut"],
)
def test_many_environments_agree(config):
    num_envs = 4
    one = run(HostTrainer(num_envs=num_envs), config=config, episodes=40)
    two = run(DeviceTrainer(num_envs=num_envs), config=config, episodes=40)
    assert len(one[0]) == len(two[0]) >= 3
    for ours, theirs in zip(one[0], two[0], strict=True):
        ours, theirs = (jax.vmap(type(b).masked)(b) for b in (ours, theirs))
        np.testing.assert_array_equal(ours.action, theirs.action)
        np.testing.assert_allclose(ours.observation, theirs.observation, atol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), one[3], two[3])
