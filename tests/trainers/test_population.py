"""Populations: each member is as if it had run alone."""

import dataclasses
import operator
import os
import subprocess
import sys
import textwrap
import warnings

import jax
import numpy as np
import pytest

from agents_zoo import a2c, dqn, ppo, reinforce
from rlws import environments
from rlws.networks import MLP
from rlws.numerics import trees
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, Member
from rlws.trainers.population import Population, Untraceable

SMALL = MLP((8,))
# REINFORCE gathers whole episodes, so its members are ready at different times.
CONFIGS = {
    "a2c": a2c.Config(backbone=SMALL, unroll_length=7),
    "ppo": ppo.Config(backbone=SMALL, unroll_length=16, epochs=2, minibatches=4),
    "dqn": dqn.Config(backbone=SMALL, min_size=64, capacity=150, batch_size=8, prioritised=True),
    "reinforce": reinforce.Config(backbone=SMALL, episodes_per_update=3),
}
BUDGET = dict(steps=500, report_period=120)


def run_all(config, members, trainer, environment="jax:CartPole-v1"):
    """Returns the last progress of each member, with all its returns."""
    last, returns = {}, {i: [] for i in range(len(members))}
    for reports in trainer.train_all(config, environment, members, **BUDGET):
        for i, progress in reports.items():
            returns[i].extend(progress.returns)
            last[i] = progress._replace(returns=np.array(returns[i]))
            if progress.spent:
                last[i] = last[i]._replace(params=jax.device_get(progress.params))
    return [last[i] for i in range(len(members))]


def same(ours, alone):
    """Returns the largest difference of parameters; all else must be equal."""
    assert ours.spent
    assert alone.spent
    for field in ("steps", "episodes", "updates"):
        assert getattr(ours, field) == getattr(alone, field), field
    np.testing.assert_array_equal(ours.returns, alone.returns)
    difference = jax.tree.map(lambda x, y: np.abs(x - y).max(), ours.params, alone.params)
    return max(jax.tree.leaves(difference))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_envs"),
    [
        *(("reinforce", 1), ("dqn", 1), ("a2c", 3)),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in (("a2c", 1), ("ppo", 1), ("reinforce", 3))
        ),
        *(pytest.param(name, 3, marks=pytest.mark.exact) for name in ("ppo", "dqn")),
    ],
)
def test_each_seed_of_a_population_is_its_run_alone(name, num_envs):
    trainer = DeviceTrainer(num_envs=num_envs)
    members = [Member(seed, {}) for seed in (5, 6, 7)]
    together = run_all(CONFIGS[name], members, trainer)
    assert len({tuple(progress.returns[:5]) for progress in together}) == 3
    for member, ours in zip(members, together, strict=True):
        (alone,) = run_all(CONFIGS[name], [member], trainer)
        assert same(ours, alone) < 2e-4


@pytest.mark.slow
def test_settings_vary_within_one_program():
    trainer = DeviceTrainer(num_envs=2)
    settings = [{"learning_rate": r, "discount": d} for r in (1e-3, 1e-2) for d in (0.9, 0.99)]
    members = [Member(0, setting) for setting in settings]
    together = run_all(CONFIGS["a2c"], members, trainer)
    for member, ours in zip(members, together, strict=True):
        (alone,) = run_all(CONFIGS["a2c"], [member], trainer)
        assert same(ours, alone) < 2e-4
    assert same(together[0], together[0]) == 0
    first, third = (together[i].params["value/linear"]["w"] for i in (0, 2))
    assert np.abs(first - third).max() > 1e-4


@pytest.mark.slow
def test_members_that_cannot_share_a_program_get_their_own():
    population = Population(CONFIGS["a2c"], environments.make("jax:CartPole-v1"), 2)
    settings = [{"unroll_length": n, "discount": d} for n in (4, 8) for d in (0.9, 0.99)]
    members = [Member(seed, setting) for setting in settings for seed in (0, 1)]
    assert population.parts(members) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.slow
@pytest.mark.thorough
def test_members_beyond_the_free_memory_run_in_parts(monkeypatch):
    population = Population(CONFIGS["a2c"], environments.make("jax:CartPole-v1"), 2)
    size = population.member_bytes([Member(s, {}) for s in range(5)])
    assert 10_000 < size < 10_000_000
    monkeypatch.setattr("rlws.trainers.population.free_memory", lambda: 4.5 * size)
    with pytest.warns(UserWarning, match=rf"^5 members of {size / 1e6:,.1f} MB each: 3 parts"):
        assert population.parts([Member(s, {}) for s in range(5)]) == [[0, 1], [2, 3], [4]]
    trainer = DeviceTrainer(num_envs=2)
    with pytest.warns(UserWarning, match="^3 members of .* 2 parts") as found:
        together = run_all(CONFIGS["a2c"], [Member(s, {}) for s in range(3)], trainer)
    assert len(found) == 1
    assert [progress.spent for progress in together] == [True] * 3


# Ways in which Python asks for a value.
LOOKS = {
    "bool": lambda cost: cost > 0.5 and None,
    "float": float,
    "array": np.asarray,
    "index": lambda cost: isinstance(cost, jax.Array) and operator.index(cost.astype(int)),
}


class Looking(a2c.Config):
    """A2C that looks at a setting's value while it is made."""

    look: str = "bool"

    def make(self, spec):
        LOOKS[self.look](self.entropy_cost)
        return super().make(spec)


class LookingLoss(a2c.Config):
    """A2C whose loss looks at a setting's value."""

    look: str = "bool"

    def make(self, spec):
        agent, look, cost = super().make(spec), LOOKS[self.look], self.entropy_cost

        class Learner(type(agent.learner)):
            def loss(self, params, trajectory, key, state):
                look(cost)
                return super().loss(params, trajectory, key, state)

        kept = {f.name: getattr(agent.learner, f.name) for f in dataclasses.fields(agent.learner)}
        return dataclasses.replace(agent, learner=Learner(**kept))


class Counting(a2c.Config):
    """A2C that counts how often its loss is traced."""

    def make(self, spec):
        agent = super().make(spec)

        class Learner(type(agent.learner)):
            def loss(self, *args):
                TRACED.append(spec)
                return super().loss(*args)

        kept = {f.name: getattr(agent.learner, f.name) for f in dataclasses.fields(agent.learner)}
        return dataclasses.replace(agent, learner=Learner(**kept))


TRACED = []


@pytest.mark.slow
def test_runs_of_equal_settings_are_compiled_once():
    budget = dict(steps=60, report_period=20)
    train = lambda seed, rate, **more: list(
        DeviceTrainer(num_envs=2).train(
            Counting(backbone=SMALL, unroll_length=7, learning_rate=rate),
            environments.make("jax:CartPole-v1"),
            seed=seed,
            **(budget | more),
        )
    )
    reports = train(0, 1e-3)
    assert reports[-1].updates > 0
    traced = len(TRACED)
    assert traced
    resumed = train(0, 1e-3, resume=through_memory(reports[-1].snapshot()), steps=90)
    assert resumed[-1].steps >= 90
    train(1, 1e-3)
    assert len(TRACED) == traced
    train(1, 1e-2)
    assert len(TRACED) > traced


def through_memory(snapshot):
    return snapshot._replace(arrays=trees.flatten(snapshot.arrays))


@pytest.mark.parametrize(
    ("kind", "look"),
    # How it looks decides what JAX raises; where it does, only when.
    [*((Looking, look) for look in LOOKS), (LookingLoss, "array")],
)
def test_a_setting_whose_value_is_looked_at_is_found_before_anything_runs(kind, look):
    config = kind(backbone=SMALL, unroll_length=7, look=look)
    population = Population(config, environments.make("jax:CartPole-v1"), 2)
    members = [Member(0, {"entropy_cost": cost}) for cost in (0.0, 0.1)]
    with pytest.raises(Untraceable, match="of entropy_cost, at least one cannot vary"):
        population.compile(members)
    seeds = [Member(seed, {}) for seed in (0, 1)]  # what is the same for all may be looked at
    population.compile(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Looking, LookingLoss])
def test_a_setting_that_decides_the_program_is_named_and_compiled_apart(kind):
    config = kind(backbone=SMALL, unroll_length=7)
    members = [Member(0, {"entropy_cost": cost}) for cost in (0.0, 0.1)]
    with pytest.warns(UserWarning, match="entropy_cost.*each run is compiled by itself"):
        together = run_all(config, members, DeviceTrainer(num_envs=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (alone,) = run_all(config, members[1:], DeviceTrainer(num_envs=2))
    assert same(together[1], alone) == 0


def test_devices_must_be_there():
    with pytest.raises(SettingError, match="num_devices must divide num_envs=3"):
        DeviceTrainer(num_envs=3, num_devices=2).check("jax:CartPole-v1")


@pytest.mark.slow
@pytest.mark.exact
def test_two_devices_learn_what_one_does():
    """In a process of its own, since devices are made when JAX starts."""
    program = """
        import jax, numpy as np
        from agents_zoo import a2c, ppo, dqn
        from rlws.networks import MLP
        from rlws.trainers import DeviceTrainer
        small = MLP((8,))
        for config in (
            a2c.Config(backbone=small, unroll_length=7),
            ppo.Config(backbone=small, unroll_length=16, epochs=2, minibatches=4),
            dqn.Config(backbone=small, min_size=64, capacity=128, batch_size=8),
        ):
            last = []
            for count in (1, 2):
                trainer = DeviceTrainer(num_envs=4, num_devices=count)
                *_, progress = trainer.train(config, "jax:CartPole-v1", steps=400)
                last.append(progress)
            one, two = last
            assert (one.steps, one.episodes, one.updates) == (two.steps, two.episodes, two.updates)
            gap = jax.tree.map(
                lambda x, y: np.abs(np.array(x) - np.array(y)).max(), one.params, two.params
            )
            assert max(jax.tree.leaves(gap)) < 1e-4, gap
            print(type(config).__module__, one.updates, max(jax.tree.leaves(gap)))
    """
    program = textwrap.dedent(program)
    flags = os.environ.get("XLA_FLAGS", "")
    environ = os.environ | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=2"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert len(found.stdout.splitlines()) == 3


def test_devices_are_for_one_run():
    trainer = DeviceTrainer(num_envs=2, num_devices=2)
    members = [Member(0, {}), Member(1, {})]
    with pytest.raises(SettingError, match="num_devices must be 1 for several runs at once"):
        next(trainer.train_all(ppo.Config(), "jax:CartPole-v1", members, steps=10))
