"""Action masks: what they forbid is neither chosen, nor explored, nor worth anything."""

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import a2c, dqn, impala, ppo, reinforce, sac
from rlws import environments, networks
from rlws.environments.jax_environment import JaxEnvironment, first, following
from rlws.networks.distributions import Categorical
from rlws.networks.masks import ILLEGAL, legal, random_action
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.types import EnvironmentSpec

MLP = networks.MLP((8,))
ACTIONS = 4
LOGITS = np.float32([1.0, -2.0, 0.5, 30.0])


class Forbidding(JaxEnvironment):
    """Forbids all but one or two of four actions; who takes another gets NaN as reward."""

    dtype: str = "bool"

    def spec(self):
        mask = specs.BoundedArray((ACTIONS,), self.dtype, 0, 1)
        return EnvironmentSpec(
            observations={"action_mask": mask, "place": specs.Array((3,), np.float32)},
            actions=specs.DiscreteArray(ACTIONS),
            max_episode_steps=9,
        )

    def _seen(self, t):
        mask = (jnp.arange(ACTIONS) == t % ACTIONS) | (jnp.arange(ACTIONS) == (t * t + 1) % 3)
        place = jnp.float32([1, 100, t])
        return {"action_mask": mask.astype(self.dtype), "place": place}

    def reset(self, key):
        return jnp.int32(0), first(self._seen(jnp.int32(0)))

    def step(self, state, action):
        allowed = self._seen(state)["action_mask"][action] > 0
        state = state + 1
        reward = jnp.where(allowed, 1.0, jnp.nan)
        return state, following(self._seen(state), reward, state >= 5, False)


@pytest.mark.parametrize("mask", [(1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 0), (1, 1, 1, 1)])
def test_probabilities_are_those_of_the_legal_actions_alone(mask):
    chosen = np.flatnonzero(mask)

    @jax.jit
    def ask(mask):
        policy, alone = Categorical(LOGITS).masked(legal(mask)), Categorical(LOGITS[chosen])
        each = [jax.vmap(x.log_prob)(jnp.arange(x.logits.size)) for x in (policy, alone)]
        return each, policy.entropy(), alone.entropy(), policy.mode()

    (every, expected), entropy, of_alone, mode = ask(np.array(mask))
    np.testing.assert_allclose(np.exp(every)[chosen], np.exp(expected), rtol=1e-6)
    np.testing.assert_array_equal(np.delete(np.exp(every), chosen), 0)
    np.testing.assert_allclose(entropy, of_alone, atol=1e-6)
    assert mode in chosen


@pytest.mark.parametrize("mask", [(1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0)])
def test_entropy_and_gradients_are_finite(mask):
    mask = np.array(mask)

    def measures(logits):
        policy = Categorical(logits).masked(legal(mask))
        entropy = policy.entropy()
        return entropy + policy.log_prob(jnp.argmax(legal(mask))), (entropy, legal(mask))

    slope, (entropy, allowed) = jax.device_get(jax.jit(jax.grad(measures, has_aux=True))(LOGITS))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[~allowed], 0)
    if mask.sum() == 1:
        assert entropy == 0


def test_a_mask_that_forbids_everything_forbids_nothing():
    allowed = jax.jit(legal)
    np.testing.assert_array_equal(allowed(np.zeros((2, 3))), True)
    some = np.float32([[0, 1], [0, 0]])
    np.testing.assert_array_equal(allowed(some), [[False, True], [True] * 2])


def test_random_actions_are_legal_and_as_likely_as_each_other():
    observation = {"action_mask": np.array([True, False, True, True]), "place": np.zeros(2)}

    @jax.jit
    @jax.vmap
    def draw(key):
        masked, plain = (random_action(x, ACTIONS, key) for x in (observation, np.zeros(2)))
        return masked, plain, jax.random.randint(key, (), 0, ACTIONS, jnp.int32)

    found, plain, drawn = draw(jax.random.split(jax.random.key(0), 9_000))
    counts = np.bincount(found, minlength=ACTIONS)
    assert counts[1] == 0
    np.testing.assert_allclose(counts[[0, 2, 3]], 3_000, atol=5 * np.sqrt(2_000))
    # Without a mask they are those of any version before there were masks.
    np.testing.assert_array_equal(plain, drawn)


def test_forbidden_values_are_the_lowest_and_others_what_they_were():
    spec = Forbidding().spec()
    agent = dqn.Config(MLP).make(spec)
    params = jax.jit(agent.learner.init)(jax.random.key(0)).params
    place, apply = np.float32([1, 2, 3]), jax.jit(agent.learner.network.apply)
    q = lambda mask: np.asarray(apply(params, {"action_mask": np.array(mask), "place": place}).q)
    free, some = q([True] * 4), q([True, False, False, True])
    np.testing.assert_array_equal(free[[0, 3]], some[[0, 3]])
    np.testing.assert_array_equal(some[[1, 2]], np.float32(ILLEGAL))


def test_a_normaliser_leaves_masks_alone():
    config = ppo.Config(MLP, unroll_length=8, normalise_observations=True)
    learner = config.make(Forbidding("float32").spec()).learner
    statistics = jax.eval_shape(learner.init, jax.random.key(0)).params["observation_statistics"]
    assert statistics["action_mask"] is None
    assert statistics["place"] is not None


CONFIGS = {
    "reinforce": reinforce.Config(MLP),
    "a2c": a2c.Config(MLP, unroll_length=7),
    "ppo": ppo.Config(
        networks.GRU(MLP, 8),
        unroll_length=16,
        sequence_length=8,
        minibatches=2,
        normalise_observations=True,
    ),
    "impala": impala.Config(MLP),
    "dqn": dqn.Config(MLP, min_size=16, capacity=64, batch_size=8, epsilon_steps=100),
    "rainbow": dqn.Config(
        MLP, min_size=16, capacity=64, batch_size=8, n_step=3, duelling=True, prioritised=True
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "dqn")) for n in CONFIGS]
)
def test_agents_never_do_what_is_forbidden_and_learn_finite_things(name):
    """A forbidden action would end the run, as its reward is NaN."""
    trainer = DeviceTrainer(num_envs=2)
    *_, last = trainer.train(CONFIGS[name], Forbidding("float32"), steps=300)
    assert last.updates >= 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(last.params)))
    assert all(np.isfinite(x) and abs(x) < 1e6 for x in last.metrics.values()), last.metrics


@pytest.mark.slow
def test_a_host_environment_shows_masks_alike():
    config = CONFIGS["dqn"]
    *_, last = HostTrainer(num_envs=2).train(config, Forbidding(), steps=200)
    assert last.updates > 2


def test_the_learner_finds_the_probabilities_that_were_acted_by():
    environment = Forbidding()
    agent = ppo.Config(MLP, normalise_observations=True).make(environment.spec())

    @jax.jit
    def found(key):
        params = agent.learner.init(key).params
        _, timestep = environment.reset(key)
        state, keys = agent.actor.initial_state(), jax.random.split(jax.random.key(1), 5)
        select = lambda key: agent.actor.select_action(params, timestep, state, key)
        action, _, extras = jax.vmap(select)(keys)
        term = next(term for term in agent.learner.terms if term.name in params)
        seen = term.normalise(params[term.name], timestep.observation)
        policy = agent.learner.network.apply(params, seen).policy
        return jax.vmap(policy.log_prob)(action), extras["log_prob"]

    again, acted = found(jax.random.key(0))
    np.testing.assert_allclose(again, acted, atol=1e-6)


def spec_with(mask, actions=None, **others):
    return EnvironmentSpec(
        observations={"action_mask": mask, **others},
        actions=actions or specs.DiscreteArray(ACTIONS),
    )


PLACE = specs.Array((3,), np.float32)
BOX = specs.BoundedArray((1,), np.float32, -1, 1)


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        (
            ppo,
            spec_with(specs.Array((3,), bool), place=PLACE),
            r"need shape \(4,\)",
        ),
        (sac, spec_with(specs.Array((1,), bool), BOX, place=PLACE), "needs discrete actions"),
        (dqn, spec_with(specs.Array((4,), bool)), "must have an entry beside action_mask"),
    ],
)
def test_masks_that_do_not_fit_are_refused(config, spec, message):
    with pytest.raises(SettingError, match=message):
        config.Config().make(spec)


def test_forbidding_forbids():
    """The environment of these tests would notice."""
    environment = environments.to_dm_env(Forbidding(), 0, 0)
    timestep = environment.reset()
    assert isinstance(timestep, dm_env.TimeStep)
    wrong = int(np.flatnonzero(~timestep.observation["action_mask"])[0])
    assert np.isnan(environment.step(wrong).reward)
