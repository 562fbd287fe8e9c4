"""Policies over actions of every shape."""

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import a2c, dqn, ppo, vmpo
from rlws import networks
from rlws.environments import JaxEnvironment
from rlws.networks import MLP
from rlws.networks.distributions import Joint, MultiCategorical
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.types import EnvironmentSpec

KEY = jax.random.key(0)
SCALAR = specs.Array((), np.float32)
COUNTS = specs.BoundedArray((2,), np.int64, 1, [2, 4])
NEST = {
    "flags": specs.BoundedArray((2,), np.int8, 0, 1),
    "move": specs.DiscreteArray(3),
    "push": (
        specs.BoundedArray((1,), np.float32, -2, 2),
        specs.BoundedArray((2,), np.int64, 1, [2, 4]),
    ),
}


class Buttons(JaxEnvironment):
    """One step: a reward for each part of a nested action that is right."""

    def spec(self):
        discount = specs.BoundedArray((), np.float32, 0, 1)
        return EnvironmentSpec(specs.Array((1,), np.float32), NEST, SCALAR, discount)

    def reset(self, key):
        one = jnp.float32(1)
        return key, dm_env.TimeStep(jnp.int32(0), jnp.float32(0), one, jnp.ones(1))

    def step(self, state, action):
        right = (
            (action["flags"] == jnp.array([1, 0])).sum()
            + (action["move"] == 2)
            + (jnp.abs(action["push"][0] - 1.0) < 0.7).sum()
            + (action["push"][1] == jnp.array([2, 3])).sum()
        )
        zero = jnp.float32(0)
        return state, dm_env.TimeStep(jnp.int32(2), jnp.float32(right), zero, jnp.ones(1))


def distribution():
    spec = Buttons().spec()
    network = networks.compose(spec, MLP((8,)), policy=networks.policy(spec))
    return jax.jit(lambda key: network.apply(network.init(key), np.ones((5, 1), np.float32)))(
        KEY
    ).policy


def test_several_choices_at_once_by_hand():
    logits = np.log(np.float32([[0.5, 0.5, 1e-30], [0.2, 0.3, 0.5]]))

    @jax.jit
    def ask(logits, key):
        policy = MultiCategorical(logits, np.int32([1, 0]))
        drawn = jax.vmap(policy.sample)(jax.random.split(key, 5000))
        return policy.log_prob(np.array([2, 1])), policy.entropy(), policy.mode(), drawn

    log_prob, found, mode, drawn = jax.device_get(ask(logits, KEY))
    np.testing.assert_allclose(log_prob, np.log(0.5 * 0.3), rtol=1e-5)
    entropy = -sum(p * np.log(p) for p in (0.5, 0.5, 0.2, 0.3, 0.5))
    np.testing.assert_allclose(found, entropy, rtol=1e-5)
    np.testing.assert_array_equal(mode, [1, 2])
    assert set(drawn[:, 0]) == {1, 2}
    np.testing.assert_allclose(np.bincount(drawn[:, 1]) / 5000, [0.2, 0.3, 0.5], atol=0.03)


def test_parts_of_an_action_are_independent():
    policy = distribution()
    assert isinstance(policy, Joint)

    @jax.jit
    def ask(policy, key):
        action, log_prob = policy.sample_and_log_prob(key)
        parts = jax.tree.leaves(policy.parts, is_leaf=lambda x: hasattr(x, "log_prob"))
        each = [part.log_prob(x) for part, x in zip(parts, jax.tree.leaves(action), strict=True)]
        entropies = [part.entropy() for part in parts]
        whole = policy.log_prob(action), policy.entropy(), policy.kl(policy)
        return action, log_prob, each, entropies, whole

    action, log_prob, each, entropies, (again, entropy, kl) = ask(policy, KEY)
    assert jax.tree.structure(action) == jax.tree.structure(NEST)
    np.testing.assert_allclose(log_prob, again, rtol=1e-5)
    np.testing.assert_allclose(log_prob, sum(each), rtol=1e-5)
    np.testing.assert_allclose(entropy, sum(entropies), rtol=1e-5)
    np.testing.assert_allclose(kl, 0.0, atol=1e-6)
    np.testing.assert_allclose(entropies[0], 2 * np.log(2), rtol=1e-2)  # near uniform


def test_divergences_of_nested_actions_are_sums_by_kind():
    """Of choices and means, and of deviations."""
    one = jax.device_get(distribution())
    ramp = lambda x: np.broadcast_to(np.arange(x.shape[-1], dtype=np.float32), x.shape)
    steeper = lambda part: part._replace(logits=part.logits + ramp(part.logits))
    parts = {
        **one.parts,
        "flags": steeper(one.parts["flags"]),
        "move": steeper(one.parts["move"]),
        "push": (
            one.parts["push"][0]._replace(mean=np.full((5, 1), np.float32(0.3))),
            one.parts["push"][1],
        ),
    }
    wider = parts["push"][0]._replace(log_std=one.parts["push"][0].log_std + 0.7)
    other = Joint({**parts, "push": (wider, parts["push"][1])})
    normal, choices = one.parts["push"][0], ("flags", "move")
    stretched = normal._replace(log_std=wider.log_std)
    discrete = Joint({name: one.parts[name] for name in choices})
    changed = Joint({name: parts[name] for name in choices})

    @jax.jit
    def ask(one, other, discrete, changed, normals):
        each = [discrete.parts[name].kl(changed.parts[name]) for name in choices]
        moved = [normals[0].kl(x) for x in normals[1:]]
        return one.divergences(other), discrete.divergences(changed), each, moved

    normals = (normal, parts["push"][0], stretched)
    found, of_discrete, each, (moved, second) = ask(one, other, discrete, changed, normals)
    each = np.sum(each, axis=0)
    np.testing.assert_allclose(found, np.stack([each + moved, second], axis=1), rtol=1e-5)
    assert (np.asarray(found) > 1e-3).all()
    np.testing.assert_allclose(of_discrete, each[:, None], rtol=1e-5)


@pytest.mark.slow
def test_vmpo_learns_every_part():
    config = vmpo.Config(backbone=MLP((16,)), unroll_length=8, learning_rate=0.01)
    *_, last = DeviceTrainer(num_envs=8).train(config, Buttons(), steps=6_400, report_period=3_200)
    assert last.returns[-100:].mean() > 4.0  # of 6; at random 2.9


@pytest.mark.slow
def test_each_part_has_a_mask_of_its_own():
    actions = {"flags": NEST["flags"], "counts": COUNTS, "move": NEST["move"]}
    shapes = {"flags": (2, 2), "counts": (2, 4), "move": (3,)}
    masks = {name: specs.BoundedArray(x, bool, False, True) for name, x in shapes.items()}
    seen = {"action_mask": masks, "place": specs.Array((1,), np.float32)}
    spec = EnvironmentSpec(seen, actions, SCALAR, SCALAR)
    network = networks.compose(spec, MLP((8,)), policy=networks.policy(spec))
    legal = {
        "flags": np.array([[1, 0], [1, 1]], bool),
        "counts": np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool),
        "move": np.array([0, 0, 0], bool),  # forbids nothing
    }
    observation = {"action_mask": legal, "place": np.ones(1, np.float32)}
    policy = lambda key: network.apply(network.init(key), observation).policy
    drawn = jax.jit(lambda key: jax.vmap(policy(key).sample)(jax.random.split(key, 200)))(KEY)
    found = {name: [set(np.unique(x)) for x in np.atleast_2d(drawn[name].T)] for name in drawn}
    assert found == {"flags": [{0}, {0, 1}], "counts": [{1, 2}, {3}], "move": [{0, 1, 2}]}
    wrong = spec._replace(observations={**seen, "action_mask": masks["move"]})
    with pytest.raises(SettingError, match=r"has shape \(3,\), but the environment's actions, "):
        networks.compose(wrong, MLP((8,)), policy=networks.policy(wrong))
    with pytest.raises(SettingError, match=r"needs discrete actions, got BoundedArray"):
        networks.compose(spec._replace(actions=NEST), MLP((8,)), policy=networks.policy(spec))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [HostTrainer(num_envs=8), DeviceTrainer(num_envs=8)])
def test_a2c_learns_every_part(trainer):
    config = a2c.Config(backbone=MLP((16,)), unroll_length=8, learning_rate=0.03)
    *_, last = trainer.train(config, Buttons(), steps=6_400, report_period=3_200)
    assert last.returns[-100:].mean() > 5.0  # of 6; at random 2.9


@pytest.mark.slow
def test_ppo_goes_through_minibatches_of_nests():
    config = ppo.Config(backbone=MLP((8,)), unroll_length=16, minibatches=2, epochs=2)
    *_, last = DeviceTrainer(num_envs=4).train(config, Buttons(), steps=128)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(last.params)))


def test_who_cannot_says_who_can():
    with pytest.raises(SettingError, match=r"this agent needs discrete actions, .* PPO takes any"):
        dqn.Config().make(Buttons().spec())
    many = EnvironmentSpec(SCALAR, specs.BoundedArray((2,), np.int32, 0, 5000), SCALAR, SCALAR)
    with pytest.raises(SettingError, match="at most 1000 of them"):
        networks.compose(many, MLP((4,)), policy=networks.policy(many))
