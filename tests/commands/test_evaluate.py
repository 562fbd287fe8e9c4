"""`rlws evaluate`: how good the policy of a run is, the same each time."""

import json
import shutil

import numpy as np
import pytest

from rlws.commands import evaluate
from rlws.numerics import checkpoint
from tests.commands.toys import arrays, steps


def result(folder):
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.slow
def test_evaluate_equals_the_last_evaluation_of_the_run(copy, rlws):
    summary = json.loads((copy / "summary.json").read_text())
    found = rlws("evaluate", copy, "--episodes", "6")
    assert found.status == 0
    kept = result(copy)
    assert (kept["step"], kept["episodes"], kept["seed"]) == (400, 6, 0)
    for name in ("mean", "std"):
        assert kept[f"return_{name}"] == summary[f"evaluation_return_{name}"]
    mean, deviation = kept["return_mean"], kept["return_std"]
    assert found.out.startswith(f"step 400: return {mean:.1f} ± {deviation:.1f}, IQM ")


@pytest.mark.slow
def test_of_few_episodes_there_is_no_interval(copy, rlws):
    told = rlws("evaluate", copy, "--episodes", "1").out
    assert "over 1 episode (" in told
    assert "95 %" not in told
    assert result(copy)["return_iqm_interval"] is None


@pytest.mark.slow
def test_evaluate_says_what_its_episodes_say(copy, rlws):
    assert rlws("evaluate", copy, "--episodes", "12").status == 0
    kept = result(copy)
    returns = np.array(kept["returns"])
    assert returns.shape == (12,)
    assert set(returns) == {-1.0, 1.0}  # caught some and missed some
    expected = {"mean": returns.mean(), "std": returns.std(), "min": -1.0, "max": 1.0}
    assert {k: kept[f"return_{k}"] for k in expected} == pytest.approx(expected)
    low, high = kept["return_iqm_interval"]
    assert low <= kept["return_iqm"] <= high
    assert kept["length_mean"] == 9


@pytest.mark.slow
def test_evaluate_plays_the_same_episodes_each_time(copy, rlws):
    found = {}
    for name, flags in {
        "one": (),
        "again": (),
        "more": ("--episodes", "12"),
        "seed": ("--seed", "1"),
        "before": ("--at", steps(copy)[1]),
    }.items():
        assert rlws("evaluate", copy, "--episodes", "6", *flags).status == 0
        found[name] = result(copy)
    assert found["again"] == found["one"]
    assert found["more"]["returns"][:6] == found["one"]["returns"]
    assert found["seed"]["returns"] != found["one"]["returns"]
    assert found["seed"]["seed"] == 1
    assert found["before"]["step"] == steps(copy)[1]


def test_evaluate_tells_also_where_it_may_not_write(toy, rlws, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evaluate, "write_json", refuse)
    found = rlws("evaluate", toy, "--episodes", "6")
    assert found.status == 0
    assert found.out.startswith("step 400: return ")
    assert found.err.startswith("warning: evaluation.json was not written: ")


@pytest.mark.parametrize(
    ("flags", "message", "status"),
    [
        (["--episodes", "0"], "--episodes must be at least 1 and at most 1000000, got 0", 2),
        (["--at", "bset"], "at must be a step, such as 50k, or best, got 'bset'", 2),
        (["--at", "-1"], "no checkpoint at or before step -1 in", 3),
    ],
)
def test_evaluate_explains_wrong_input_in_one_line(flags, message, status, toy, refused):
    assert message in refused("evaluate", toy, *flags, status=status)


def test_evaluate_of_no_run_is_one_line(copy, refused, tmp_path):
    assert "must be the folder of a run" in refused("evaluate", tmp_path)
    shutil.rmtree(copy / "checkpoints")
    assert "must hold a checkpoint, got none" in refused("evaluate", copy)


@pytest.mark.slow
def test_evaluate_acts_as_in_training_or_elsewhere(copy, rlws, refused):
    flags = "--episodes", "6"
    assert rlws("evaluate", copy, *flags).status == 0
    usual = result(copy)
    assert rlws("evaluate", copy, *flags, "--stochastic").status == 0
    assert result(copy)["stochastic"]
    assert result(copy)["returns"] != usual["returns"]
    assert rlws("evaluate", copy, *flags, "--environment", "jax:Catch+limit=4").status == 0
    assert (result(copy)["length_mean"], usual["length_mean"]) == (4, 9)
    text = refused("evaluate", copy, "--environment", "jax:CartPole-v1")
    assert text.startswith("--environment must show and take what the run's does")


@pytest.mark.slow
def test_evaluate_and_fork_at_the_best(copy, rlws):
    name = checkpoint.names(copy / "checkpoints")[2]
    found = checkpoint.read(copy / "checkpoints" / name)
    facts = {**found.facts, "best": {"evaluation_return_mean": 0.5}}
    checkpoint.save(copy / "best", name, found.arrays, facts)
    told = rlws("evaluate", copy, "--at", "best", "--episodes", "6")
    assert "kept since evaluation_return_mean was 0.5" in told.out
    best = result(copy)
    assert (best["step"], best["seed"]) == (int(name), 1)  # not the episodes it was chosen by
    assert rlws("evaluate", copy, "--at", name, "--seed", "1", "--episodes", "6").status == 0
    assert result(copy) == best
    forked = rlws("fork", copy, "--at", "best", "--name", "again")
    assert forked.out.startswith(f"forked from step {int(name)}, the best")
    assert arrays(copy.with_name("toy-again")) == arrays(copy)


def test_evaluate_leaves_out_what_no_episode_says(copy, rlws, monkeypatch):
    silent = lambda *args, **kwargs: (
        lambda params, seed: (np.ones(2), np.ones(2), np.full(2, np.nan), np.ones(2))
    )
    monkeypatch.setattr(evaluate, "evaluator", silent)
    monkeypatch.setattr(evaluate, "parsed", lambda info: {"rare": "last", "success": "last"})
    found = rlws("evaluate", copy, "--episodes", "2")
    assert "warning: info rare: it was said in no episode" in found.err
    assert "success_mean" in result(copy)
    assert "rare_mean" not in result(copy)


def test_evaluate_elsewhere_goes_on_without_info_that_is_not_said_there(copy, rlws):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"info": ["success"]}))
    found = rlws("evaluate", copy, "--episodes", "2", "--environment", "jax:Catch+limit=20")
    assert found.status == 0
    assert "got 'success'; it says none" in found.err
    assert "evaluated without info" in found.err
