"""Agents that are right and say so in ways that the zoo does not, and one that comes to NaN."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from agents_zoo import a2c, dqn, ppo
from rlws.actor import EpsilonGreedy, PolicyActor
from rlws.agent import AgentConfig
from rlws.diagnose import diagnose
from rlws.diagnose.toy import toy
from rlws.learner import Learner
from rlws.networks import MLP
from tests.diagnose.healthy import PARTS
from tests.diagnose.right_agents import take, variant


class Drawn(a2c.A2C):
    """Has a method of the name of one of PPO's, and of another meaning."""

    def samples(self, policy, key):
        return policy.sample(key)


class Odd(a2c.A2C):
    """Has a number of that name, a loss that needs what its update adds to a batch, and tells a
    metric `q` that is none, but not its loss."""

    samples: int = 3

    def update(self, state, batch, key):
        extras = {**batch.extras, "scale": jnp.ones_like(batch.reward)}
        state, metrics = super().update(state, batch._replace(extras=extras), key)
        return state, {name: x for name, x in metrics.items() if name != "loss"}

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        value = self.network.unroll(params, trajectory).value[:-1]
        metrics = {**metrics, "q": jax.lax.stop_gradient(value)}
        return loss * trajectory.extras["scale"], metrics


class Penalised(ppo.PPO):
    """Pays for divergence, and calls what actors record by another name."""

    cost: float = 1.0

    def update(self, state, batch, key):
        extras = {"log_prob": batch.extras["behaviour"]}
        return super().update(state, batch._replace(extras=extras), key)

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss + self.cost * metrics["kl"], metrics


class Recorded(PolicyActor):
    def select_action(self, params, timestep, state, key):
        action, state, extras = super().select_action(params, timestep, state, key)
        return action, state, {"behaviour": extras["log_prob"]}


class Rewarded(ppo.PPO):
    """Is paid for divergence."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss - 0.5 * metrics["kl"], metrics


class Seldom(dqn.DQN):
    """Keeps the network of targets beside a count of its own, and copies to it now and then."""

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=(state.extra, jnp.int32(0)))

    def update(self, state, batch, key):
        old, count = state.extra
        after, metrics = Learner.update(self, state, batch, key)
        now = count % 200 == 199
        old = jax.tree.map(lambda x, y: jnp.where(now, y, x), old, after.params)
        return after._replace(extra=(old, count + 1)), metrics

    def loss(self, params, trajectory, key, state):
        return super().loss(params, trajectory, key, state._replace(extra=state.extra[0]))


class Never(Seldom):
    """Forgets to."""

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        return after._replace(extra=(state.extra[0], after.extra[1])), metrics


class Averaged(dqn.DQN):
    """Values what follows by the mean of its last two networks, which it keeps as one tree."""

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(lambda x: jnp.stack([x, x]), state.params))

    def update(self, state, batch, key):
        after, metrics = Learner.update(self, state, batch, key)
        push = lambda old, new: jnp.stack([old[1], new])
        return after._replace(extra=jax.tree.map(push, state.extra, after.params)), metrics

    def loss(self, params, trajectory, key, state):
        value = take(self.network.unroll(params, trajectory).q[:-1], trajectory.action)
        q = jax.vmap(lambda p: self.network.unroll_following(p, trajectory).q)(state.extra)
        after = self.config.discount * trajectory.discount * q.mean(axis=0).max(axis=-1)
        target = trajectory.reward + after
        return 0.5 * (target - value) ** 2, {"value": value, "target": target}


class Lost(a2c.A2C):
    """Comes to NaN."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss + jnp.log(-jnp.square(metrics["entropy"]) - 1.0), metrics


def config(learner, module=a2c):
    return dataclasses.replace(variant(module, learner)(), backbone=MLP((8,)))


@pytest.mark.slow
@pytest.mark.parametrize("learner", [pytest.param(Drawn, marks=pytest.mark.thorough), Odd])
def test_what_a_stranger_writes_is_healthy(learner):
    report = diagnose(config(learner), only=PARTS)
    assert not report.failures, [(check.name, check.got) for check in report.failures]


@pytest.mark.slow
@pytest.mark.thorough
def test_an_actor_may_record_likelihoods_by_another_name():
    class Config(variant(ppo, Penalised)):
        def make(self, spec):
            agent = super().make(spec)
            return dataclasses.replace(agent, actor=Recorded(agent.actor.network, log_prob=True))

    plain = {"normalise_observations": False, "scale_rewards": False}
    report = diagnose(Config(backbone=MLP((8,)), **plain), only=["learner"])
    assert not report.failures, [(check.name, check.got) for check in report.failures]
    [on_policy] = [check for check in report.checks if check.name == "learner: on-policy"]
    assert (on_policy.verdict, on_policy.got[:9]) == ("skip", "behaviour")


@pytest.mark.thorough
def test_who_is_paid_for_divergence_is_named():
    report = diagnose(config(Rewarded, ppo), only=["learner"])
    assert "learner: divergence" in [check.name for check in report.failures]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("learner", "moves"), [(Seldom, "pass"), (Never, "fail"), (Averaged, "pass")]
)
def test_target_networks_may_be_several_copied_seldom_and_kept_beside_a_count(learner, moves):
    found = {x.name: x for x in diagnose(config(learner, dqn), only=["learner"]).checks}
    assert found["learner: extra"].verdict == moves
    assert found["learner: target networks"].verdict == "pass"  # they are told what to say, too


@pytest.mark.slow
@pytest.mark.thorough
def test_who_explores_by_a_temperature_is_asked_with_one_that_explores():
    class Config(dqn.Config):
        def explorer(self, network):
            return EpsilonGreedy(network, 0.0, 0.0, 1, temperature=self.temperature)

    report = diagnose(Config(backbone=MLP((8,)), temperature=0.05), only=["P5"])
    assert report.healthy, report.checks


@pytest.mark.thorough
def test_advantages_of_another_next_value_are_named(monkeypatch):
    whole = a2c.generalised_advantages
    late = lambda reward, discount, trace, values: whole(
        reward, discount, trace, values.at[1:-1].set(values[2:])
    )
    monkeypatch.setattr(a2c, "generalised_advantages", late)
    report = diagnose(config(a2c.A2C), only=["learner"])
    assert "learner: credit ahead" in [check.name for check in report.failures]


@pytest.mark.thorough
def test_traces_without_a_discount_are_named(monkeypatch):
    whole = a2c.generalised_advantages
    loose = lambda reward, discount, trace, values: whole(
        reward, discount, trace / jnp.where(discount > 0, discount, 1.0), values
    )
    monkeypatch.setattr(a2c, "generalised_advantages", loose)
    report = diagnose(config(a2c.A2C), only=["learner"])
    assert [check.name for check in report.failures] == ["learner: traces"]


@pytest.mark.slow
@pytest.mark.thorough
def test_what_comes_to_nan_ends():
    report = diagnose(config(Lost), only=["P1", "P12"], seeds=2, steps=400)
    assert "NaN" in report.failures[0].advice


class Swapped(dqn.DQN):
    """Takes what follows from the network that learns."""

    def loss(self, params, trajectory, key, state):
        return super().loss(params, trajectory, key, state._replace(extra=state.params))


@pytest.mark.thorough
def test_values_of_what_learns_and_schedules_the_wrong_way_are_named():
    made = dataclasses.replace(config(Swapped, dqn), epsilon_start=0.05, epsilon_end=1.0)
    report = diagnose(made, only=["actor", "learner"])
    names = [check.name for check in report.failures]
    assert {"learner: target networks", "actor: exploration"} <= {*names}


class Conservative(dqn.DQN):
    """Keeps the values of actions low that were not taken (Kumar et al., 2020, "CQL")."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        q = self.network.unroll(params, trajectory).q[:-1]
        taken = jnp.take_along_axis(q, trajectory.action[:, None], axis=-1)[:, 0]
        return loss + (jax.nn.logsumexp(q, axis=-1) - taken), metrics


@pytest.mark.slow
@pytest.mark.thorough
def test_a_penalty_on_other_actions_is_noted():
    report = diagnose(config(Conservative, dqn), only=["learner"])
    assert not report.failures, [(check.name, check.got) for check in report.failures]
    [values] = [check for check in report.checks if check.name == "learner: values"]
    assert values.verdict == "note"


class Named(AgentConfig):
    """Has the settings of other libraries."""

    learning_starts: int = 10_000
    buffer_size: int = 1_000_000
    train_freq: int = 4
    target_update_interval: int = 10_000
    tau: float = 1.0
    num_minibatches: int = 32
    ent_coef: float = 0.0


def test_settings_are_known_by_the_names_that_others_give_them():
    found = toy(Named())
    assert (found.learning_starts, found.buffer_size, found.train_freq) == (100, 2_000, 2)
    assert (found.target_update_interval, found.tau, found.num_minibatches) == (20, 0.05, 4)
    assert found.ent_coef == 0.0
