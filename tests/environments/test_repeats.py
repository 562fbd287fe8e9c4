"""Whether an environment plays an episode again: tried before a run says that it does."""

import dm_env
import numpy as np
import pytest
from dm_env import specs

from rlws.environments import resolve
from rlws.environments.repeats import repeats


class Walk(dm_env.Environment):
    """Walks at random, from a generator that is seeded anew in each episode, or is not."""

    def __init__(self, seeded):
        self._seeded, self._rng, self.episode = seeded, np.random.default_rng(), 0

    def reset(self):
        if self._seeded:
            self._rng = np.random.default_rng(self.episode)
        self.episode += 1
        return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
        assert -1 <= action <= 3
        return dm_env.transition(0.0, self._rng.normal(size=2).astype(np.float32))

    def observation_spec(self):
        return specs.Array((2,), np.float32)

    def action_spec(self):
        return specs.BoundedArray((), np.float32, -1, 3)


@pytest.mark.parametrize("seeded", [True, False])
def test_one_that_draws_repeats_where_it_is_seeded(seeded):
    assert repeats(Walk(seeded)) == seeded


@pytest.mark.parametrize("name", ["gym:CartPole-v1", "gym:Pendulum-v1", "jax:Catch"])
def test_ours_repeat(name):
    assert repeats(resolve.host(name, 3, 1))


def test_one_that_cannot_be_tried_is_not_said_to():
    class Broken(Walk):
        def step(self, action):
            raise ValueError("broken joint")

    assert not repeats(Broken(True))
