"""Live health: measures worked by hand, a warning for each rule, and the end of NaN runs."""

import json
import re

import numpy as np
import pytest

from agents_zoo import a2c
from rlws import networks, normalise
from rlws.commands import cli
from rlws.runs.experiment import Experiment
from rlws.runs.health import LASTING, Health, NonFiniteError
from rlws.trainers import HostTrainer, Progress


def report(params, updates=1, metrics=(("loss", 0.0),)):
    none = np.zeros(0)
    return Progress(10, 0, updates, none, none, dict(metrics), None, params, False, None)


def test_norms_equal_hand_worked_numbers():
    health = Health()
    params = {"w": np.float32([3, 4]), normalise.STATISTICS: {"count": np.float32(1e6)}}
    assert health.measure(report(params, 0, ())) == {"parameter_norm": 5.0}


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
    "still": ([{"update_norm": 0.1}], {"update_norm": 0.0}, "did not change"),
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


LASTING_ROWS = {
    "value": ({"explained_variance": 0.0}, {"explained_variance": -0.3}, "explained_variance -0.3"),
    "spread": ({"action_spread": 0.5}, {"action_spread": 0.009}, "fell from 0.5 to 0.009"),
    "deaf": ({"gradient_norm": 0.1}, {"gradient_norm": 0.0}, "no gradient reaches the parameters"),
    "padding": ({"weight_0_fraction": 0.9}, {"weight_0_fraction": 0.96}, "96% of each batch"),
}


@pytest.mark.parametrize(("fine", "bad", "text"), LASTING_ROWS.values(), ids=LASTING_ROWS)
def test_what_may_pass_is_told_only_if_it_lasts(fine, bad, text):
    health = Health()
    told = lambda row: health.warnings({"steps": 1200, **row})
    for row in [fine] + [bad] * (LASTING - 1) + [fine] + [bad] * (LASTING - 1):
        assert told(row) == []
        saved = json.loads(json.dumps(health.save()))
        health = Health()
        health.restore(saved)  # as a resumed run does
    (warning,) = told(bad)
    assert text in warning
    assert told(bad) == []


def test_a_row_without_updates_is_no_sign_of_health():
    health = Health()
    rows = [{"explained_variance": -0.3}, {}] * LASTING
    assert sum(len(health.warnings({"steps": 1, **row})) for row in rows) == 1


def test_a_continuous_policy_whose_entropy_is_negative_is_fine():
    health = Health()
    assert all(health.warnings({"steps": 1, "entropy": x}) == [] for x in (1.4, 0.5, -0.5, -2.0))


@pytest.mark.slow
def test_a_run_whose_parameters_become_nan_stops_with_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rlws.settings.FLOAT", 1e39)
    agent = a2c.Config(networks.MLP((8,)), learning_rate=1e38, unroll_length=32)
    experiment = Experiment(
        name="nan",
        environment="jax:Catch",
        agent=agent,
        trainer=HostTrainer(),
        steps=100_000,
        directory=str(tmp_path / "run"),
    )
    with pytest.raises(SystemExit) as end:
        cli.main(experiment, [])
    assert end.value.code == 5
    told, error = capsys.readouterr().err.splitlines()
    assert told == "working out what led to it"
    assert re.match(r"error: update \d+, at \d+ steps, came to NaN or infinity: ", error)
    assert "rlws replay" in error
    assert (tmp_path / "run" / "capsule").is_dir()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "NonFiniteError" in summary["ended_by"]
    assert summary["steps"] < 100_000


@pytest.mark.parametrize("name", ["entropy", "spread", "value"])
@pytest.mark.parametrize(
    ("returns", "told"),
    [
        (np.minimum(np.arange(120) * 10.0, 500), False),  # solved
        (np.zeros(120), True),  # never learned
        (np.tile([20.0, 9.0, 22.0, 14.0], 30), True),  # at random
        (np.r_[np.arange(60) * 8.0, np.full(60, 9.0)], True),  # learned, and collapsed
    ],
)
def test_a_policy_that_does_well_need_not_explore(name, returns, told):
    bad = {"entropy": 0.001, "action_spread": 0.001, "explained_variance": -0.5}
    health = Health()
    found = health.warnings({"steps": 0, "entropy": 0.7, "action_spread": 0.5})
    key = {"spread": "action_spread", "value": "explained_variance"}.get(name, name)
    for i, x in enumerate(returns):
        late = {key: bad[key]} if i >= 55 else {}
        found += health.warnings({"steps": i, "episode_return": float(x), **late})
    assert bool(found) == told
