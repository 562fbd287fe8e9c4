"""What the doctor sees of agents that call, or keep, things otherwise than the zoo does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import discrete_sac, dqn, ppo, td3
from rlws.actor import Actor
from rlws.adders import Replay
from rlws.agent import AgentConfig
from rlws.diagnose import actors, applicable, doctor, probes
from rlws.diagnose.gradients import check_gradients_of_outputs
from rlws.diagnose.learners import check_learner
from rlws.diagnose.memory import check_memory
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import WIDE, Tabular, make_table
from rlws.diagnose.toy import toy
from rlws.diagnose.units import check_units
from rlws.diagnose.updates import check_updates
from rlws.diagnose.value_estimates import has_values
from rlws.learner import Learner
from rlws.networks import GRU, MLP
from rlws.settings import SettingError
from tests.diagnose.right_agents import take, variant

SMALL = MLP((8,))
PLAIN = {"normalise_observations": False, "scale_rewards": False, "epochs": 1, "minibatches": 1}


def subject(config, continuous=False):
    config = toy(config, {"epochs", "minibatches", "backbone"})
    return Subject(config, Tabular(make_table(), continuous).spec(), 0.9)


def verdicts(checks):
    return {check.name: check.verdict for check in checks}


class Wrapped(Actor):
    """Does something else to what an actor does."""

    actor: Actor

    def initial_state(self):
        return self.actor.initial_state()

    def select_action(self, params, timestep, state, key):
        return self.actor.select_action(params, timestep, state, key)


class Uncentred(Wrapped):
    """Leaves out the middle between bounds that are not -1 and 1."""

    middle: float

    def select_action(self, params, timestep, state, key):
        action, *rest = super().select_action(params, timestep, state, key)
        return action - self.middle, *rest


class Late(Wrapped):
    """Records what is remembered after the step."""

    def select_action(self, params, timestep, state, key):
        action, state, extras = super().select_action(params, timestep, state, key)
        return action, state, {**extras, "core": state[0] if isinstance(state, tuple) else state}


class Best(Wrapped):
    """Records how likely the best action is, whatever it takes."""

    recorded: str

    def select_action(self, params, timestep, state, key):
        action, state, extras = super().select_action(params, timestep, state, key)
        outputs = self.actor.network.apply(params, timestep.observation)
        logits = outputs.q if hasattr(outputs, "q") else outputs.policy.logits
        return action, state, {**extras, self.recorded: jax.nn.softmax(logits).max()}


def acting(module, wrapper, *args):
    """Returns settings of a module's agent with a wrapper around its actor."""

    class Config(module.Config):
        def make(self, spec):
            agent = super().make(spec)
            return dataclasses.replace(agent, actor=wrapper(agent.actor, *args))

    return Config


@pytest.mark.thorough
def test_bounds_that_are_not_1_show_who_leaves_out_their_middle():
    plain = td3.Config(backbone=SMALL, random_steps=0)
    assert verdicts(check_units(subject(plain, True))) == {
        "actor: units": "pass",
        "learner: units": "pass",
    }

    class Config(td3.Config):
        def make(self, spec):
            agent = super().make(spec)
            middle = float(spec.actions.minimum + spec.actions.maximum) / 2
            return dataclasses.replace(agent, actor=Uncentred(agent.actor, middle))

    off = Config(backbone=SMALL, random_steps=0)
    assert verdicts(check_units(subject(off, True))) == {"actor: units": "note"}


def test_a_step_between_other_bounds_is_that_between_minus_1_and_1():
    low, high = WIDE
    table = make_table(best={0: 0.3})
    rewards = []
    for wide, action in ((False, 0.5), (True, low + 0.75 * (high - low))):
        environment = Tabular(table, True, wide=wide)
        state, _ = environment.reset(jax.random.key(0))
        rewards.append(environment.step(state, jnp.array([action], jnp.float32))[1].reward)
    np.testing.assert_allclose(rewards, 1 - 0.2**2, rtol=1e-5)


class Forgets(ppo.PPO):
    """Begins each unroll without what was recorded."""

    def update(self, state, batch, key):
        core = jax.tree.map(jnp.zeros_like, batch.extras["core"])
        return super().update(state, batch._replace(extras={**batch.extras, "core": core}), key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "fails"),
    [
        pytest.param(ppo.Config, set(), marks=pytest.mark.thorough),
        (acting(ppo, Late), {"actor: core"}),
        (variant(ppo, Forgets), {"learner: core"}),
    ],
    ids=["right", "late", "forgets"],
)
def test_what_is_remembered_is_recorded_as_it_was_and_begun_with(config, fails):
    found = verdicts(check_memory(subject(config(backbone=GRU(MLP((8,)), 8), **PLAIN))))
    assert {*found} == {"actor: core", "learner: core"}
    assert {name for name, verdict in found.items() if verdict == "fail"} == fails


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mu", "logp"])
def test_recorded_likelihoods_are_known_by_other_names(name):
    config = acting(ppo, Best, name)(backbone=SMALL, **PLAIN)
    found = verdicts(actors.check_actor(subject(config)))
    assert found["actor: likelihoods"] == "fail"


class Polyak(dqn.DQN):
    """Moves targets at every step; keeps them as lists, and beside something else."""

    kept: float = 0.05
    turned: bool = False

    def init(self, key):
        state = super().init(key)
        return state._replace(extra={"slow": state.params, "count": jnp.zeros(2)})

    def update(self, state, batch, key):
        after, metrics = Learner.update(self, state, batch, key)
        share = 1 - self.kept if self.turned else self.kept
        move = lambda old, new: old + share * (new - old)
        slow = jax.tree.map(move, state.extra["slow"], after.params)
        return after._replace(extra={"slow": slow, "count": state.extra["count"] + 1}), metrics

    def loss(self, params, trajectory, key, state):
        return super().loss(params, trajectory, key, state._replace(extra=state.extra["slow"]))


class Turned(Polyak):
    turned: bool = True


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "pace"), [(Polyak, None), (Turned, "fail")])
def test_a_target_that_moves_nearly_all_the_way_is_named(learner, pace):
    class Config(AgentConfig):
        polyak: float = 0.05

        def make(self, spec):
            return variant(dqn, learner)(backbone=SMALL, min_size=32, batch_size=16).make(spec)

    assert verdicts(check_updates(subject(Config()))).get("learner: pace") == pace


class Chunks(ppo.PPO):
    """Has as many minibatches as a setting says that the doctor does not know."""

    def update(self, state, batch, key):
        config = dataclasses.replace(self.config, minibatches=self.config.chunks)
        return ppo.PPO.update(dataclasses.replace(self, config=config), state, batch, key)


@pytest.mark.thorough
def test_weight_0_does_not_count_in_whatever_minibatches():
    class Config(variant(ppo, Chunks)):
        chunks: int = 2

    found = verdicts(check_learner(subject(Config(backbone=SMALL, epochs=1, minibatches=1))))
    assert found["learner: padding"] == "pass"


class Cold(discrete_sac.DiscreteSAC):
    """Takes for entropy what is none."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        temperature = jnp.exp(jax.lax.stop_gradient(params["log_temperature"]))
        return loss + 2 * temperature * metrics["entropy"], metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "fails"),
    [
        pytest.param(discrete_sac.DiscreteSAC, set(), marks=pytest.mark.thorough),
        (Cold, {"learner: soft policy"}),
    ],
)
def test_a_temperature_makes_actions_alike(learner, fails):
    found = verdicts(check_gradients_of_outputs(subject(variant(discrete_sac, learner)())))
    assert {"learner: soft targets", "learner: soft policy", "learner: temperature"} <= {*found}
    assert {name for name, verdict in found.items() if verdict == "fail"} == fails


class Same(dqn.DQN):
    """Takes for what follows what is worth as much as it was before."""

    def loss(self, params, trajectory, key, state):
        value = take(self.network.unroll(params, trajectory).q[:-1], trajectory.action)
        q = self.network.unroll(state.extra, trajectory).q[:-1]
        after = self.config.discount * trajectory.discount * q.max(axis=-1)
        return 0.5 * jnp.square(trajectory.reward + after - value), {"value": value}


class Corrected(dqn.DQN):
    """Corrects for how likely actions were, of the step after or, wrongly, of the same one."""

    early: bool = False

    def loss(self, params, trajectory, key, state):
        q = self.network.unroll(params, trajectory).q
        best = self.network.unroll(state.extra, trajectory).q.max(axis=-1)
        value = take(q[:-1], trajectory.action)
        ratio = jnp.minimum(1.0, jnp.exp(-trajectory.extras["log_mu"]))
        ratio = ratio if self.early else jnp.append(ratio[1:], 0.0)
        constant = jax.lax.stop_gradient(value)
        trace = ratio * trajectory.trace() * jnp.append(jnp.ones(len(ratio) - 1), 0.0)

        def back(after, x):
            reward, discount, best, trace, following = x
            target = reward + discount * (best + trace * (after - following))
            return target, target

        steps = trajectory.reward, 0.9 * trajectory.discount, best[1:], trace
        steps = *steps, jnp.append(constant[1:], 0.0)
        targets = jax.lax.scan(back, jnp.float32(0), steps, reverse=True)[1]
        return 0.5 * jnp.square(targets - value), {"value": value}


class Early(Corrected):
    early: bool = True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "fails"),
    [(Same, {"own value"}), (Corrected, set()), (Early, {"corrections"})],
)
def test_targets_of_their_own_step_are_named(learner, fails):
    class Config(variant(dqn, learner)):
        def make(self, spec):
            agent = super().make(spec)
            adder = Replay(capacity=1000, batch_size=8, min_size=64, length=length)
            return dataclasses.replace(agent, actor=Best(agent.actor, "log_mu"), adder=adder)

    length = 1 if learner is Same else 8
    config = Config(backbone=SMALL)
    found = verdicts(check_gradients_of_outputs(subject(config)))
    assert found["learner: own value"] == ("fail" if learner is Same else "pass")
    assert ("learner: corrections" in found) == (learner is not Same)
    failed = {name.removeprefix("learner: ") for name, x in found.items() if x == "fail"}
    assert failed == fails


class Continuous(td3.Config):
    """Does not refuse actions that can be counted."""

    def make(self, spec):
        if not hasattr(spec.actions, "num_values"):
            return super().make(spec)
        agent = super().make(Tabular(make_table(), True).spec())
        return agent


def test_who_acts_by_numbers_is_asked_with_numbers():
    assert applicable.is_continuous(Continuous(backbone=SMALL))
    assert not applicable.is_continuous(dqn.Config(backbone=SMALL))


class Between(td3.Config):
    """Refuses other bounds."""

    def make(self, spec):
        if spec.actions.maximum != 1:
            raise SettingError("bounds must be -1 and 1")
        return super().make(spec)


def test_who_takes_no_other_bounds_is_not_shown_any():
    assert applicable.takes_bounds(td3.Config(backbone=SMALL))
    assert not applicable.takes_bounds(Between(backbone=SMALL))


class Carries(Wrapped):
    """Counts what it sees, in a state that its network knows nothing of."""

    def initial_state(self):
        return super().initial_state(), jnp.zeros(6)

    def select_action(self, params, timestep, state, key):
        action, inner, extras = super().select_action(params, timestep, state[0], key)
        return action, (inner, state[1] + timestep.observation), {**extras, "core": state[1]}


class Looks(dqn.DQN):
    """Values what was recorded, too."""

    def value(self, params, trajectory):
        return super().value(params, trajectory) + 0 * trajectory.extras["core"][0].sum()


def test_memory_of_an_actor_s_own_is_seen_and_its_values_can_be_asked():
    class Config(acting(dqn, Carries)):
        def make(self, spec):
            agent = super().make(spec)
            old = agent.learner
            fields = {f.name: getattr(old, f.name) for f in dataclasses.fields(old)}
            return dataclasses.replace(agent, learner=Looks(**fields))

    asked = subject(Config(backbone=SMALL, epsilon_start=0.0, epsilon_end=0.0, epsilon_steps=1))
    assert has_values(asked.agent, asked.spec)
    assert actors.remembers(asked.agent, asked.spec)
    plain = subject(dqn.Config(backbone=SMALL))
    assert not actors.remembers(plain.agent, plain.spec)


@pytest.mark.parametrize(
    ("probe", "got", "words"),
    [
        ("P6", [0.61] * 4, "as if the discount were 0.84, not 0.90"),
        ("P6", [0.36] * 4, "truncation is treated as termination"),
        ("P6", [1.4] * 4, "returns go on"),
        ("P7", [0.29, 0.25, 0.18, 0.1], "count for too little"),
        ("P7", [0.5, 0.4, 0.3, 0.2], "values of the last step are bootstrapped"),
    ],
)
def test_advice_follows_the_direction_of_the_error(probe, got, words):
    [asked] = [x for x in probes.PROBES if x.name.startswith(probe + " ")]
    assert words in asked.advice(np.array(asked.values(0.9)), np.array(got))


def test_a_report_names_units_only_where_a_probe_fails():
    assert {x.name for x in (doctor.ACTIONS, doctor.LOSSES)} == {"actor: units", "learner: units"}
    assert all(any(x.name.startswith(y) for x in probes.PROBES) for y in doctor.BOUNDED)
