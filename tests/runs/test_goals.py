"""The best of the evaluations is kept, and good ones end a run, which can go on all the same."""

import dataclasses
import math

import numpy as np
import pytest

from rlws import Checkpoints, Evaluation
from rlws.numerics import checkpoint
from rlws.runs import folders, launch
from rlws.runs.folders import saved
from rlws.runs.goals import Goal, Stopping, check_goals, stop_at, unsaid
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer
from tests.commands.toys import TOY, arrays, rows, run_toy

RETURN = "evaluation_return_mean"
EVALUATED = dataclasses.replace(TOY, evaluation=Evaluation(episodes=6, period=40))


def ends(values, **settings):
    """Returns at which of these evaluations a run ends, and why; None where it does not."""
    experiment, stopping = dataclasses.replace(EVALUATED, **settings), Stopping()
    for i, value in enumerate(values):
        again = Stopping()  # resumed before each
        again.restore(stopping.save())
        assert again == stopping
        if why := stopping.look(experiment, {RETURN: value}):
            return i, why


@pytest.mark.parametrize(
    ("values", "settings", "where"),
    [
        ([1, 5, 4], dict(stop_at=f"{RETURN}=5"), 1),
        ([1, 4.9, 4], dict(stop_at=f"{RETURN}=5"), None),
        ([5, 4, 5, 6], dict(stop_at=f"{RETURN}=5", stop_times=2), 3),
        ([1, 0.5, 0.1], dict(stop_at=f"{RETURN}:min=0.5"), 1),
        ([1, 2, 2, 1, 3], dict(patience=2), 3),
        ([1, 2, 2, 3, 1], dict(patience=2), None),
        ([math.nan, 1, math.nan, 2], dict(patience=2), None),
        ([3, 2, 1, 1, 1], dict(patience=2, checkpoint=Checkpoints(best=f"{RETURN}:min")), 4),
    ],
)
def test_when_a_run_ends(values, settings, where):
    found = ends(values, **settings)
    assert (found and found[0]) == where


def test_why_a_run_ended_is_said():
    stop = f"{RETURN}=5"
    assert (
        ends([5, 5], stop_at=stop, stop_times=2)[1]
        == f"{RETURN} came to 5, 2 times in a row: {stop}"
    )
    text = f"{RETURN} did not get better than 7 in 1 evaluation"
    assert ends([7, 6], patience=1)[1] == text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (dict(stop_at=RETURN), "stop_at must be name=number"),
        (dict(stop_at="evaluation_return=5"), "stop_at: unknown value .*did you mean"),
        (dict(stop_at=f"{RETURN}:low=5"), "after the colon"),
        (dict(checkpoint=Checkpoints(best="loss")), "checkpoint.best: unknown value 'loss'"),
        (dict(patience=1, evaluation=Evaluation()), "evaluation.period .* must be at least 1"),
        (dict(checkpoint=Checkpoints(best="distance")), "checkpoint.best: unknown value 'distan"),
        (dict(stop_times=2), "stop_times must be with a stop_at, got 2"),
    ],
)
def test_goals_that_cannot_be_are_refused(settings, text):
    experiment = dataclasses.replace(EVALUATED, **settings)
    with pytest.raises(SettingError, match=text):
        check_goals(experiment)


def test_nothing_is_asked_of_evaluations_by_default():
    check_goals(TOY)


def test_goals_have_short_names():
    short = dict(stop_at="distance:min=1", checkpoint=Checkpoints(best="return"))
    check_goals(dataclasses.replace(EVALUATED, info=("distance",), **short))
    assert Goal.of("distance:min") == Goal("evaluation_distance", -1.0)
    assert Goal.of("return") == Goal.of(RETURN) == Goal(RETURN, 1.0)


def evaluations(folder):
    """Returns the mean return of each evaluation by its step."""
    return {int(row["steps"]): float(row[RETURN]) for row in rows(folder) if RETURN in row}


@pytest.mark.slow
def test_the_best_is_kept_beside_the_newest(tmp_path):
    for sign, way in ((1, ""), (-1, ":min")):
        kept = Checkpoints(period=1, keep=99, best=RETURN + way)
        folder = run_toy(tmp_path / f"run{way}", evaluation=EVALUATED.evaluation, checkpoint=kept)
        found = evaluations(folder)
        best = max(found, key=lambda step: sign * found[step])  # of equal ones, the first
        assert checkpoint.names(folder / "best") == [f"{best:012d}"]
        own = saved(folder, print, "best")
        assert own.facts["best"] == {RETURN: found[best]}
        told = folders.summary(folder)
        assert (told[f"best_{RETURN}"], told["best_steps"]) == (found[best], best)
        assert {k: x.tobytes() for k, x in own.arrays.items()} == arrays(folder, best)


@pytest.mark.slow
def test_the_best_of_each_member_is_kept(tmp_path):
    kept = Checkpoints(best=RETURN)
    trainer = DeviceTrainer(num_envs=2, num_seeds=2)
    changes = dict(evaluation=EVALUATED.evaluation, checkpoint=kept, trainer=trainer)
    folder = run_toy(tmp_path / "run", **changes)
    for member in (folder / "0_seed0", folder / "1_seed1"):
        found = evaluations(member)
        own = saved(member, print, "best")
        assert own.facts["step"] == max(found, key=found.get)
        assert own.facts["members"] == 1


def test_there_may_be_no_best(tmp_path):
    with pytest.raises(SettingError, match="got no best; train with"):
        saved(tmp_path, print, "best")


@pytest.mark.slow
def test_a_stopped_run_says_so_and_goes_on_as_if_it_had_not_been(tmp_path):
    evaluation = EVALUATED.evaluation
    whole = run_toy(tmp_path / "whole", evaluation=evaluation)
    goal = f"{RETURN}={sorted(evaluations(whole).values())[-2]}"
    made = dataclasses.replace(EVALUATED, directory=str(tmp_path / "run"), stop_at=goal)
    summary = launch.run(made)
    assert summary["stopped_by"].startswith(f"{RETURN} came to ")
    assert summary["steps"] < 400
    assert summary[RETURN] >= float(goal.partition("=")[2])
    again = launch.run(dataclasses.replace(made, resume=True))
    assert (again["steps"], again["stopped_by"]) == (summary["steps"], summary["stopped_by"])
    last = launch.run(dataclasses.replace(made, resume=True, stop_at=""))
    assert "stopped_by" not in last
    assert rows(tmp_path / "run") == rows(whole)
    assert arrays(tmp_path / "run") == arrays(whole)


def learnt(folder):
    """Returns the parameters at the end."""
    found = checkpoint.newest(folder / "checkpoints", print).arrays
    return {k: x for k, x in found.items() if k.startswith("run/state/learner/params")}


@pytest.mark.slow
def test_members_stop_each_by_itself(tmp_path):
    evaluation, trainer = Evaluation(episodes=12, period=40), DeviceTrainer(num_envs=2, num_seeds=3)
    whole = run_toy(tmp_path / "whole", evaluation=evaluation, trainer=trainer)
    names = "0_seed0", "1_seed1", "2_seed2"
    known = [evaluations(whole / name) for name in names]
    firsts = lambda goal: [next((s for s, x in own.items() if x >= goal), 400) for own in known]
    values = {x for own in known for x in own.values()}
    goal = next(x for x in values if len({*firsts(x)}) == 3 and max(firsts(x)) < 400)
    changes = dict(evaluation=evaluation, trainer=trainer, directory=str(tmp_path / "run"))
    made = dataclasses.replace(TOY, **changes, stop_at=f"return={goal}")
    summary = launch.run(made)
    assert f"3 stopped at {sum(firsts(goal)) / 3:,.0f} steps in the mean" in summary["all"]
    for name, step in zip(names, firsts(goal), strict=True):
        own = folders.summary(tmp_path / "run" / name)
        assert own["steps"] == step
        assert own["stopped_by"].startswith(f"{RETURN} came to ")
        played = rows(tmp_path / "run" / name)
        assert played == rows(whole / name)[: len(played)]
        assert played[-1]["steps"] == str(step)
    again = launch.run(dataclasses.replace(made, resume=True))
    assert all(again[name] == summary[name] for name in ("steps", "episodes", "updates"))
    for name in names:  # each is a run by itself, which goes on as if it had not been stopped
        one = folders.experiment_of(tmp_path / "run" / name)
        folder = str(tmp_path / "run" / name)
        launch.run(dataclasses.replace(one, directory=folder, resume=True, stop_at=""))
        expected, found = learnt(whole / name), learnt(tmp_path / "run" / name)
        assert expected.keys() == found.keys() != set()
        for key, x in expected.items():  # but for what another program rounds otherwise
            np.testing.assert_allclose(found[key], x, rtol=1e-4, atol=1e-6)
    with pytest.raises(SettingError, match=r"of other settings .*stop_at"):
        launch.run(dataclasses.replace(made, resume=True, stop_at=""))
    kept = rows(tmp_path / "run" / names[0])
    with pytest.raises(SettingError, match=f"{names[0]} has gone on alone to step 400, and would"):
        launch.run(dataclasses.replace(made, resume=True))
    assert rows(tmp_path / "run" / names[0]) == kept


def test_an_evaluation_that_does_not_say_it_is_neither_good_nor_bad():
    experiment = dataclasses.replace(EVALUATED, patience=1)
    stopping = Stopping()
    assert [stopping.look(experiment, row) for row in ({}, {RETURN: math.nan})] == ["", ""]
    assert stopping.look(experiment, {RETURN: 1.0}) == ""
    assert stopping.look(experiment, {RETURN: 1.0}).startswith(
        f"{RETURN} did not get better than 1"
    )
    assert unsaid(experiment, {}) == unsaid(experiment, {RETURN: math.nan}) == [RETURN]
    assert unsaid(experiment, {RETURN: 0.0}) == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x", ""])
def test_goals_are_numbers_that_can_be_reached(value):
    with pytest.raises(SettingError, match="stop_at must be name=number"):
        stop_at(dataclasses.replace(EVALUATED, stop_at=f"return={value}"))


def test_goals_are_typed_as_other_numbers():
    assert stop_at(dataclasses.replace(EVALUATED, stop_at="return=1k"))[1] == 1000
