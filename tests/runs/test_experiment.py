"""A run from start to summary: what it keeps, and that looking at it changes nothing."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import pathlib
import re
from typing import Any, NamedTuple

import gymnasium
import imageio_ffmpeg
import jax
import numpy as np
import pytest
from gymnasium import spaces

from agents_zoo import reinforce
from rlws import environments
from rlws.environments import Catch
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.networks import MLP
from rlws.runs import experiment, launch, recorder, session
from rlws.runs.check import check_experiment
from rlws.runs.experiment import Evaluation, Experiment
from rlws.settings import SettingError, describe
from rlws.tracking import Sink, plot_run, plots
from rlws.tracking.interrupts import Interrupts
from rlws.trainers import DeviceTrainer, evaluation


class Watched(Experiment):
    """An experiment that keeps its parameters."""

    def train_all(self, runs, **control):
        for reports in super().train_all(runs, **control):
            params.append(jax.device_get(reports[0].params))
            yield reports


params = []
TOY = Watched(
    name="toy",
    environment="jax:Catch",
    agent=reinforce.Config(backbone=MLP((8,)), episodes_per_update=2),
    steps=95,
    evaluation=Evaluation(episodes=3),
    quiet=True,
)


class Notes(Sink):
    def __init__(self):
        self.notes, self.rows, self.summary = [], [], None

    def log(self, row):
        self.rows.append(dict(row))

    def note(self, text):
        self.notes.append(text)

    def finish(self, summary):
        self.summary = dict(summary)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*sinks, **changes):
    return launch.run(dataclasses.replace(TOY, **changes), sinks)


class Done(NamedTuple):
    """A finished run."""

    experiment: Experiment
    directory: pathlib.Path
    summary: dict
    notes: Notes
    params: Any  # the last
    stderr: str


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run that is looked at in every way."""
    notes = Notes()
    watched = dataclasses.replace(
        TOY,
        directory=str(tmp_path_factory.mktemp("done")),
        evaluation=Evaluation(episodes=3, period=30),
        video=True,
        quiet=False,
    )
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(stderr):
        patch.setattr(experiment, "REPORTS", 13)  # so reports miss the periods
        patch.setattr(plots, "plot_run", plot_run)
        summary = launch.run(watched, (notes,))
    directory = pathlib.Path(watched.directory)
    return Done(watched, directory, summary, notes, params[-1], stderr.getvalue())


def rows_of(directory):
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


class Only(gymnasium.Env):
    """A simulator of which there can be but one."""

    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)
    open = most = 0

    def __init__(self):
        Only.open += 1
        Only.most = max(Only.most, Only.open)

    def close(self):
        Only.open -= 1

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), 1.0, False, self.time == 9, {}


@pytest.mark.slow
@pytest.mark.parametrize(("num_envs", "most"), [(1, 1), (3, 3)])
def test_there_are_no_more_environments_at_once_than_are_asked_for(num_envs, most):
    Only.open = Only.most = 0
    environments.register("mine:Only", lambda seed, index: GymEnvironment(Only(), seed, index))
    agent = dataclasses.replace(TOY.agent, max_episode_length=10)
    evaluated = Evaluation(episodes=3, num_envs=num_envs)
    summary = run(environment="mine:Only", agent=agent, steps=30, evaluation=evaluated)
    assert summary["evaluation_return_mean"] == 9
    assert (Only.open, Only.most) == (0, most)


class Endless(Catch):
    """The ball never falls, or it does in some of the episodes."""

    share: float = 1.0

    def spec(self):
        return super().spec()._replace(max_episode_steps=None)

    def reset(self, key):
        state, timestep = super().reset(key)
        return (state, jax.random.uniform(key) < self.share), timestep

    def step(self, state, action):
        (inner, held), before = state, state[0]
        inner, timestep = super().step(inner, action)
        free = lambda new, old: jax.numpy.where(held, old, new)
        kind = free(timestep.step_type, jax.numpy.int32(1))
        return (jax.tree.map(free, inner, before), held), timestep._replace(step_type=kind)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "said"), [(1.0, ": 20 had"), (0.5, "episodes, and [0-9]+ had")])
def test_what_does_not_end_has_no_return(share, said, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 30)
    environments.register("mine:Endless", lambda: Endless(share=share))
    agent = dataclasses.replace(TOY.agent, max_episode_length=10)
    how = dict(environment="mine:Endless", agent=agent, steps=0, trainer=DeviceTrainer())
    summary = run(**how, evaluation=Evaluation(episodes=20), quiet=True)
    (warning,) = summary["warnings"]
    pattern = rf"evaluation at 0 steps.*{said} not ended after 30 steps and have no return"
    assert re.search(pattern, warning)
    assert ("evaluation_return_mean" in summary) == (share < 1)
    assert (summary["evaluation_unfinished"] == 20) == (share == 1)


@pytest.mark.slow
def test_evaluation_says_how_to_do_with_fewer_environments():
    Only.open = Only.most = 0

    def make(seed, index):
        if Only.open:
            raise OSError("port 11311 is in use")
        return GymEnvironment(Only(), seed, index)

    environments.register("mine:Single", make)
    agent = dataclasses.replace(TOY.agent, max_episode_length=10)
    how = dict(environment="mine:Single", agent=agent, steps=30)
    with pytest.raises(OSError, match="in use") as error:
        run(**how, evaluation=Evaluation(episodes=3))
    assert any("--evaluation.num-envs" in note for note in error.value.__notes__)
    assert Only.open == 0
    assert run(**how, evaluation=Evaluation(episodes=3, num_envs=1))["evaluation_return_mean"] == 9
    assert "evaluation_return_mean" not in run(**how, evaluation=Evaluation(episodes=0))


@pytest.mark.slow
def test_experiment_keeps_everything_of_a_run(done):
    names = [
        ".lock",
        "checkpoints",
        "config.json",
        "metrics.csv",
        "plots",
        "summary.json",
        "videos",
    ]
    assert sorted(path.name for path in done.directory.iterdir()) == names
    assert (done.directory / "plots" / "return.png").stat().st_size > 5000
    assert json.loads((done.directory / "summary.json").read_text()) == done.summary
    assert json.loads((done.directory / "config.json").read_text()) == describe(done.experiment)
    assert done.notes.summary == done.summary
    assert done.stderr == ""


def test_experiment_summary_is_complete_and_right(done):
    summary = done.summary
    expected = {"experiment": "toy", "seed": 0, "steps": 95, "episodes": 10, "updates": 5}
    assert expected.items() <= summary.items()
    assert summary["steps_per_second"] == pytest.approx(95 / summary["seconds"])
    assert "ended_by" not in summary
    last = rows_of(done.directory)[-1]
    for name in ("steps", "episodes", "updates", "seconds", "evaluation_return_mean"):
        assert float(last[name]) == summary[name]
    # The same evaluation, played here.
    agent = TOY.agent.make(Catch().spec())
    returns, _ = evaluation.evaluator(agent, "jax:Catch", 3)(done.params, 0)
    assert summary["evaluation_return_mean"] == pytest.approx(returns.mean())
    assert summary["evaluation_return_std"] == pytest.approx(returns.std())


def test_experiment_rows_go_from_start_to_end(done):
    steps = [row["steps"] for row in done.notes.rows]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 95)
    assert len(steps) >= 14


def test_experiment_evaluates_every_period_and_once_at_the_end(done):
    said = [note for note in done.notes.notes if note.startswith("evaluation at")]
    at = [int(note.split()[2]) for note in said]
    assert [n // 30 for n in at] == [0, 1, 2, 3, 3]
    assert at[-1] == 95
    tested = [row for row in rows_of(done.directory) if row["evaluation_return_mean"]]
    assert [float(row["steps"]) for row in tested] == at


def test_experiment_counts_the_seconds_of_training_only(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(session.time, "perf_counter", lambda: now[0])

    def reports():
        for seconds in (2, 3, 4):
            now[0] += seconds
            yield seconds

    taken = []
    for report, seconds in session._timed(reports(), 0, Interrupts()):
        taken.append((report, seconds))
        now[0] += 100  # looking at it
    assert taken == [(2, 2), (3, 5), (4, 9)]


def test_experiment_films_start_middle_and_end(done):
    videos = sorted((done.directory / "videos").iterdir())
    at = [int(path.stem.removeprefix("steps_")) for path in videos]
    assert at[0] == 0
    assert 48 <= at[1] <= 54
    assert at[2:] == [95]
    for path in videos:
        assert imageio_ffmpeg.count_frames_and_secs(path)[0] == 10
    said = [note for note in done.notes.notes if note.startswith("video of a greedy episode: ")]
    assert [note.split("videos/")[1] for note in said] == [path.name for path in videos]


@pytest.mark.slow
def test_experiment_on_the_host_is_not_changed_by_looking_at_it(done):
    plain = run()
    assert plain["updates"] == done.summary["updates"]
    jax.tree.map(np.testing.assert_array_equal, done.params, params[-1])


@pytest.mark.slow
def test_experiment_on_the_device_is_not_changed_by_looking_at_it(folder, monkeypatch):
    plain = run(trainer=DeviceTrainer())
    unseen = params[-1]
    monkeypatch.setattr(experiment, "REPORTS", 7)
    often = Evaluation(episodes=2, period=20)
    seen = run(trainer=DeviceTrainer(), evaluation=often, video=True, quiet=False)
    assert plain["updates"] == seen["updates"] == 5
    jax.tree.map(np.testing.assert_array_equal, unseen, params[-1])


@pytest.mark.slow
def test_experiment_films_and_evaluates_the_end_of_an_episode_budget(folder):
    summary = run(video=True, steps=1000, episodes=2, directory="run")
    videos = sorted(path.name for path in (folder / "run" / "videos").iterdir())
    assert videos == ["steps_000000000.mp4", "steps_000000018.mp4"]
    assert (summary["steps"], summary["episodes"]) == (18, 2)
    assert "evaluation_return_mean" in summary


class Blind(Catch):
    def render(self, state):
        raise NotImplementedError("no renderer")


environments.register("toy:Blind", Blind)


def test_experiment_refuses_to_film_what_gives_no_pictures(folder):
    with pytest.raises(SettingError) as error:
        run(environment="toy:Blind", video=True)
    assert str(error.value) == (
        "--video needs pictures, and toy:Blind gives none: no renderer; leave out --video"
    )
    assert not any(folder.iterdir())


def test_experiment_of_no_steps_has_no_nan_and_goes_on_without_a_video(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder, "write_video", full)
    params.clear()
    notes = Notes()
    summary = run(notes, video=True, steps=0, seed=7)
    assert "ended_by" not in summary
    assert notes.notes[-1] == "no video at 0 steps: OSError: [Errno 28] No space left on device"
    (directory,) = (folder / "results" / "toy").iterdir()
    assert directory.name.endswith("-seed7")
    assert summary["steps"] == summary["updates"] == summary["steps_per_second"] == 0
    assert all(math.isfinite(x) for x in summary.values() if isinstance(x, float))
    assert len(params) == 1


def test_experiment_says_when_the_learner_never_ran(folder):
    notes = Notes()
    summary = run(notes, steps=5, directory="run")
    said = "the learner never ran: 5 steps were not enough for a batch"
    assert notes.notes[-1] == said
    assert summary["warnings"] == [said]
    assert json.loads((folder / "run" / "summary.json").read_text())["warnings"] == [said]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("gears\n jammed")])
@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_experiment_that_dies_keeps_what_it_has(error, folder):
    class Dying(Notes):
        def log(self, row):
            super().log(row)
            if len(self.rows) == 13:
                raise error

    with pytest.raises(type(error)):
        run(Dying(), directory="run")
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["ended_by"] in ("KeyboardInterrupt", "RuntimeError: gears jammed")
    assert summary["steps"] == int(rows_of(folder / "run")[-1]["steps"]) > 0
    assert summary["updates"] == 0
    assert "evaluation_return_mean" not in summary
    assert (folder / "run" / "plots" / "return.png").exists()


def test_experiment_directories_of_one_second_differ(folder):
    made = {launch._new_directory(dataclasses.replace(TOY, seed=2)) for _ in range(3)}
    assert len(made) == 3


def test_experiment_takes_an_empty_directory(folder):
    (folder / "mine").mkdir()
    mine = dataclasses.replace(TOY, directory="mine")
    assert (folder / launch._new_directory(mine)).samefile(folder / "mine")
    with pytest.raises(SettingError, match="must be new or empty, got 'mine'"):
        launch.run(mine)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0])
def test_experiment_seed_fits_an_int32(seed):
    with pytest.raises(SettingError, match=r"Watched\.seed must be"):
        dataclasses.replace(TOY, seed=seed)
    assert dataclasses.replace(TOY, seed=2**31 - 1).seed == 2**31 - 1


def test_two_runs_at_the_same_moment_get_a_folder_each(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # As if the other began between our look and our first file.
    monkeypatch.setattr("pathlib.Path.iterdir", lambda self: iter(()))
    first, second = launch._new_directory(TOY), launch._new_directory(TOY)
    assert first != second


def test_it_is_not_the_environment_s_fault_that_there_is_no_device(monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize backend 'nonsense': unknown\n more")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(SettingError, match=r"a device.*'nonsense': unknown; unset JAX_PLATFORMS"):
        check_experiment(TOY)
