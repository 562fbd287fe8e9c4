"""Live health: measures worked by hand, a warning for each rule, and the end of NaN runs."""

import json

import numpy as np
import pytest

from agents_zoo import ppo
from rlws import cli, networks
from rlws.experiment import Experiment
from rlws.health import Health, NonFiniteError
from rlws.trainers import DeviceTrainer, HostTrainer, Progress


def report(params, updates=1, metrics=(("loss", 0.0),)):
    none = np.zeros(0)
    return Progress(10, 0, updates, none, none, dict(metrics), None, params, False)


def test_norms_equal_hand_worked_numbers():
    health = Health()
    assert health.measure(report({"w": np.float32([3, 4])}, 0, ())) == {"parameter_norm": 5.0}
    found = health.measure(report({"w": np.float32([3, 12])}, 3))
    assert found == {"parameter_norm": pytest.approx(153**0.5), "parameter_change": 8.0}


def test_parameters_may_be_updated_in_place():
    health, params = Health(), {"w": np.float32([0])}
    health.measure(report(params, 0))
    params["w"][0] = 2
    assert health.measure(report(params))["parameter_change"] == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameters_that_are_no_numbers_end_the_run_by_name(bad):
    params = {"policy": {"w": np.float32([1, bad])}, "value": np.float32(0)}
    with pytest.raises(NonFiniteError, match=r"\['policy'\]\['w'\] is not finite after 7"):
        Health().measure(report(params, 7))


ROWS = {
    "entropy": ([{"entropy": 0.69}, {"entropy": 0.2}], {"entropy": 0.01}, "entropy fell from 0.69"),
    "gradient": ([{"gradient_norm": 0.5}] * 5, {"gradient_norm": 60.0}, "120 times"),
    "kl": ([{"kl": 0.01}], {"kl": 0.3}, "kl 0.3"),
    "dropped": ([{"dropped_fraction": 0.1}], {"dropped_fraction": 0.4}, "40% of the experience"),
    "still": ([{"parameter_change": 0.1}], {"parameter_change": 0.0}, "did not change"),
}


@pytest.mark.parametrize(("usual", "bad", "text"), ROWS.values(), ids=ROWS)
def test_each_warning_is_given_once_and_not_before(usual, bad, text):
    health = Health()
    for row in usual:
        assert health.warnings({"steps": 5, **row}) == []
    (warning,) = health.warnings({"steps": 1200, **bad})
    assert warning.startswith("warning at 1,200 steps: ")
    assert text in warning
    assert health.warnings({"steps": 1300, **bad}) == []


def test_a_continuous_policy_whose_entropy_is_negative_is_fine():
    health = Health()
    assert all(health.warnings({"steps": 1, "entropy": x}) == [] for x in (1.4, 0.5, -0.5, -2.0))


@pytest.mark.parametrize("trainer", [HostTrainer(), DeviceTrainer()])
def test_a_run_whose_parameters_become_nan_stops_with_one_line(trainer, tmp_path, capsys):
    agent = ppo.Config(
        networks.MLP((8,)), learning_rate=1e38, unroll_length=32, epochs=2, minibatches=2
    )
    experiment = Experiment(
        name="nan",
        environment="jax:Catch",
        agent=agent,
        trainer=trainer,
        steps=100_000,
        directory=str(tmp_path / "run"),
    )
    with pytest.raises(SystemExit) as end:
        cli.main(experiment, [])
    assert end.value.code == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not finite after" in error
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "NonFiniteError" in summary["ended_by"]
    assert summary["steps"] < 100_000
