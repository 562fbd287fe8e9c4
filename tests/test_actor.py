"""The actor of a policy: draws by its probabilities, or takes the likeliest action."""

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from rlws import networks
from rlws.actor import Actor, PolicyActor, count_steps, linear
from rlws.networks import GRU, MLP, Categorical, Network
from rlws.trainers import core, initial
from rlws.types import EnvironmentSpec


class Outputs(dict):
    __getattr__ = dict.__getitem__


PROBABILITIES = np.float32([0.2, 0.5, 0.3])
NETWORK = Network(
    lambda key: {}, lambda params, _: Outputs(policy=Categorical(jnp.log(PROBABILITIES)))
)


def actions(actor, count=8192):
    zeros = jnp.zeros(count)
    timestep = dm_env.TimeStep(jnp.zeros(count, int), zeros, zeros, zeros)
    state = initial.initial_actor_state(actor, count)
    return core.act(actor, {}, jnp.zeros(2, jnp.uint32), jnp.int32(0), timestep, state)


def test_policy_actor_draws_with_its_probabilities():
    for log_prob in (False, True):
        found, _, extras = jax.jit(lambda x=log_prob: actions(PolicyActor(NETWORK, log_prob=x)))()
        shares = np.bincount(found, minlength=3) / len(found)
        np.testing.assert_allclose(shares, PROBABILITIES, atol=0.03)
        if log_prob:
            np.testing.assert_allclose(np.exp(extras["log_prob"]), PROBABILITIES[found], rtol=1e-5)


def test_policy_actor_is_greedy_when_asked():
    found, *_ = jax.jit(lambda: actions(PolicyActor(NETWORK, greedy=True), 64))()
    assert (np.asarray(found) == 1).all()


def test_policy_actor_records_the_core_state_it_came_with():
    spec = EnvironmentSpec(
        specs.Array((3,), np.float32), specs.DiscreteArray(2), specs.Array((), float), None
    )
    network = networks.compose(spec, GRU(MLP((4,)), 4), policy=networks.CategoricalPolicy(2))
    core = {"backbone": np.float32([0.1, 0.2, 0.3, 0.4])}
    timestep = dm_env.TimeStep(np.int32(1), np.float32(0), np.float32(1), np.ones(3, np.float32))

    @jax.jit
    def act(key):
        return PolicyActor(network).select_action(network.init(key), timestep, core, key)

    _, after, extras = act(jax.random.key(0))
    np.testing.assert_array_equal(extras["core"]["backbone"], core["backbone"])
    assert not np.allclose(after["backbone"], core["backbone"])


def test_count_steps_counts_those_of_all_environments_and_workers():
    class Counting(Actor):
        def initial_state(self):
            return jnp.int32(0)

        def select_action(self, params, timestep, state, key):
            state, total = count_steps(state, timestep)
            return jnp.int32(0), state, {"total": total}

    step_type = np.array([0, 1, 2, 1])  # the third has ended: what it does is no step
    timestep = dm_env.TimeStep(step_type, np.zeros(4), np.ones(4), np.zeros(4))
    key, states = np.zeros(2, np.uint32), np.arange(4)
    act = lambda n: core.act(Counting(), {}, key, np.int32(0), timestep, states, None, n)
    for workers in (1, 3):
        _, after, extras = jax.jit(act, static_argnums=0)(workers)
        np.testing.assert_array_equal(extras["total"], workers * 6)
        np.testing.assert_array_equal(after, [1, 2, 2, 4])


@pytest.mark.parametrize("most", [2**26, 2**31 - 1])
def test_count_steps_never_goes_back(most):
    timestep = dm_env.TimeStep(np.ones(()), 0.0, 1.0, 0.0)
    count = lambda n: count_steps(n, timestep)
    axes = {"axis_name": "workers", "axis_size": 1}
    of_all = jax.vmap(jax.vmap(count, axis_name="environments"), None, **axes)
    after, total = jax.device_get(jax.jit(of_all)(np.full(2**8, most, np.int32)))
    np.testing.assert_array_equal(after, min(most + 1, 2**31 - 1))
    np.testing.assert_array_equal(total, np.float32(most * 2**8))
    assert linear(1.0, 0.1, 3 * 10**9, total.ravel()[0]) == pytest.approx(0.1, rel=1e-6)
