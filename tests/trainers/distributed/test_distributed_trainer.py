"""What the trainer refuses, how far actors are behind, and what it logs."""

import importlib
import pathlib
import sys
import threading
import types

import numpy as np
import pytest

from agents_zoo import dqn, impala, ppo
from rlws import environments, networks
from rlws.environments import registry
from rlws.runs import launch
from rlws.runs.experiment import Evaluation, Experiment
from rlws.settings import SettingError
from rlws.trainers import DistributedTrainer
from rlws.trainers.distributed import cluster

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "faults"))

from processes import done

MLP = networks.MLP((8,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(wait_for="any", batch_blocks=9), "batch_blocks must be at most"),
        (dict(wait_for="any", num_actors=4, max_lag=3), "max_lag must be at least"),
        (dict(num_devices=3), "num_devices must divide the 2 environments"),
        (dict(vectorization="device"), "needs an environment written in JAX"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        DistributedTrainer(**settings).check("gym:CartPole-v1")


def test_only_unrolls_stand_by_themselves():
    from rlws import environments

    spec = environments.spec(environments.make("jax:CartPole-v1"))
    trainer = DistributedTrainer(wait_for="any")
    trainer.check_agent(impala.Config().make(spec))
    with pytest.raises(SettingError, match="wait_for must be 'all' for Replay"):
        trainer.check_agent(dqn.Config().make(spec))


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=r"pip install 'rlws\[ray\]'"):
        DistributedTrainer().check("gym:CartPole-v1")


@pytest.mark.slow
def test_actors_are_never_behind_by_more_than_the_limit():
    trainer = DistributedTrainer(num_envs=2, num_actors=3, wait_for="any", lookahead=1)
    assert trainer.lag_limit == 12
    reports = [*trainer.train(impala.Config(MLP), "jax:CartPole-v1", steps=2000, report_period=200)]
    lags = [r.metrics["parameter_lag_max"] for r in reports if r.metrics]
    assert 1 <= max(lags) <= 12
    assert 2000 <= reports[-1].steps < 2002
    returned = sum(x for r in reports for x in r.lengths)
    assert returned <= reports[-1].steps  # nothing is counted twice


MODULE = """
from rlws import environments

environments.register("mine:pole", lambda seed, index: environments.make("gym:CartPole-v1", seed))
"""


@pytest.mark.slow
def test_workers_import_what_the_learner_can_and_need_nothing_else(monkeypatch, tmp_path):
    (tmp_path / "poles.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("poles")
    gone = types.ModuleType("gone")
    exec("def pole(): pass", gone.__dict__)  # a function of a module that no file is of
    monkeypatch.setitem(sys.modules, "gone", gone)
    environments.register("gone:pole", gone.pole)
    trainer = DistributedTrainer(num_envs=1, num_actors=1)
    *_, report = trainer.train(impala.Config(MLP), "mine:pole", steps=16)
    assert report.steps >= 16


@pytest.mark.slow
def test_an_experiment_evaluates_beside_training(tmp_path):
    from rlws.tracking import read_metrics

    experiment = Experiment(
        name="toy",
        environment="jax:CartPole-v1",
        agent=ppo.Config(MLP, unroll_length=16, minibatches=4),
        trainer=DistributedTrainer(num_envs=1, num_actors=2),
        steps=800,
        evaluation=Evaluation(episodes=3, period=300),
        directory=str(tmp_path / "run"),
        quiet=True,
    )
    summary = launch.run(experiment)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    evaluated = ~np.isnan(rows["evaluation_return_mean"])
    assert evaluated.sum() == 4  # at 0, 300, 600 and the end
    assert (np.diff(rows["steps"]) > 0).all()
    assert summary["evaluation_return_mean"] == rows["evaluation_return_mean"][-1]
    assert {"worker_0_steps_per_second", "worker_1_steps_per_second"} <= set(rows)


@pytest.mark.slow
def test_a_run_joins_a_cluster_by_its_address_and_leaves_it_running(ray, tmp_path):
    words = ("run", "cartpole_impala", "--agent.backbone.hidden-sizes", "8", "--steps", "600")
    words = (*words, "--evaluation.episodes", "3", "--quiet", "--trainer.address")
    address = ray.get_runtime_context().gcs_address
    ended = done(*words, address, "--directory", str(tmp_path / "run"), RAY_AUTH_MODE="token")
    assert "evaluation_return_mean" in ended.out
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 8


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379"])
def test_an_address_where_nobody_is_is_refused_at_once(address):
    with pytest.raises(SettingError, match="address must be that of a running Ray cluster"):
        DistributedTrainer(address=address).check("gym:CartPole-v1")


def test_what_cannot_be_sent_is_named_and_what_is_not_asked_for_stops_nobody(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    lock = threading.Lock()
    environments.register("mine:locked", lambda seed, index: (lock, environments.make("jax:Catch")))
    environments.register("mine:free", lambda seed, index: environments.make("jax:Catch"))
    assert "mine:locked" not in cluster.registered()
    assert "mine:free" in cluster.registered()
    cluster.check_sent("mine:free", impala.Config())
    trainer = DistributedTrainer(num_actors=1)
    with pytest.raises(
        SettingError, match=r"the factory of mine:locked must .*: cannot pickle '_th"
    ):
        next(trainer.train(impala.Config(MLP), "mine:locked", steps=10))
