"""The command line: every mistake is one line on stderr and status 2, and leaves nothing behind."""

import dataclasses
import importlib
import io
import json
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import time

import gymnasium
import jax.numpy as jnp
import pytest

from agents_zoo import dqn, reinforce
from rlws import environments
from rlws.__main__ import main as rlws
from rlws.commands.cli import ERRORS, main, say
from rlws.commands.flags import parse
from rlws.environments import Catch
from rlws.networks import MLP
from rlws.runs import launch
from rlws.runs.experiment import Evaluation, Experiment
from rlws.settings import SettingError, describe
from rlws.trainers import DeviceTrainer, HostTrainer

ROOT = pathlib.Path(__file__).parents[2]
TOY = Experiment(
    name="toy",
    environment="jax:Catch",
    agent=reinforce.Config(backbone=MLP((8,)), episodes_per_update=2),
    steps=60,
    evaluation=Evaluation(episodes=3),
    quiet=True,
)


class Faulty(Catch):
    """Catch that says NaN in the fourth row."""

    def step(self, state, action):
        state, timestep = super().step(state, action)
        return state, timestep._replace(
            observation=jnp.where(state.row == 3, jnp.nan, timestep.observation)
        )


environments.register("toy:Faulty", Faulty)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capfd, *args, experiment=TOY):
    """Runs the toy with `args`; returns the one line it says about what is wrong."""
    with pytest.raises(SystemExit) as end:
        main(experiment, args=args)
    out, err = capfd.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--sed 3", "unknown option --sed; did you mean --seed?"),
        ("--sed=3 --agent.discont 1", "unknown option --sed; did you mean --seed?"),
        (
            "--agent.learnig-rate 1",
            "unknown option --agent.learnig-rate; did you mean --agent.learning-rate?",
        ),
        ("surplus", "unknown option surplus; --help lists all"),
        ("--seed x", "--seed takes a whole number, such as 200000, 200k or 2M, got 'x'"),
        (
            "--steps 1.5",
            "--steps takes none or a whole number, such as 200000, 200k or 2M, got '1.5'",
        ),
        ("--agent.discount x", "--agent.discount takes FLOAT, got 'x'"),
        (
            "--agent.backbone.hidden-sizes 4 a",
            "--agent.backbone.hidden-sizes takes [INT [INT ...]], got '4', 'a'",
        ),
        ("--seed", "--seed needs a value, got none; --help says which"),
        (
            "--agent.baseline --quiet",
            "--agent.baseline needs a value, got none; --help says which",
        ),
        ("--agent.baseline valu", "--agent.baseline: unknown value 'valu'; did you mean 'value'?"),
        (
            "--agent.baseline xyzxyz",
            "--agent.baseline: unknown value 'xyzxyz'; one of: none, moving_average, value",
        ),
        ("--agent.discount 1.5", "--agent.discount must be at least 0 and at most 1, got 1.5"),
        (
            "--agent.episodes-per-update 0",
            "--agent.episodes-per-update must be at least 1, got 0",
        ),
        ("--trainer.num-envs 0", "--trainer.num-envs must be at least 1, got 0"),
        ("--evaluation.period -1", "--evaluation.period must be at least 0, got -1"),
        ("--steps -1", "--steps must be at least 0 and at most 1e+15, got -1"),
        ("--episodes -1", "--episodes must be at least 0 and at most 1e+15, got -1"),
        (f"--steps {10**30}", f"--steps must be at least 0 and at most 1e+15, got {10**30}"),
        ("--evaluation.num-envs 0", "--evaluation.num-envs must be at least 1, got 0"),
        ("--seed 2147483648", "--seed must be at least 0 and at most 2147483647, got 2147483648"),
        ("--seed -1", "--seed must be at least 0, got -1"),
        (
            "--steps None",
            "steps or episodes must limit the run, got None for both; set steps",
        ),
        ("--trainer devic", "--trainer: unknown value 'devic'; did you mean 'device'?"),
        ("--trainer", "--trainer: unknown value ''; one of: host, device, distributed"),
        (
            "--environment jax:Cach",
            "environment: unknown name 'jax:Cach'; did you mean 'jax:Catch'?",
        ),
        (
            "--environment gym:CartPol-v1",
            "environment: unknown name 'gym:CartPol-v1'; did you mean 'gym:CartPole-v1'?",
        ),
        (
            "--environment gym:CartPole-v1 --trainer device",
            "DeviceTrainer needs an environment written in JAX, got 'gym:CartPole-v1'; use one such"
            " as jax:CartPole-v1, or the HostTrainer",
        ),
    ],
)
def test_cli_mistakes_are_one_line_and_leave_nothing(args, message, capfd, folder):
    assert fails(capfd, *args.split()) == message
    assert not any(folder.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_cli_mistakes_are_told_on_any_terminal(encoding, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert fails(capfd, "--sed", "3") == "unknown option --sed; did you mean --seed?"
    line = fails(capfd, "--agent.discount", "2")
    assert line == "--agent.discount must be at least 0 and at most 1, got 2.0"


def test_cli_mismatch_of_agent_and_environment_names_both(capfd, folder):
    discrete = dataclasses.replace(TOY, agent=dqn.Config())
    line = fails(capfd, "--environment", "gym:Pendulum-v1", experiment=discrete)
    assert "needs discrete actions" in line
    assert "BoundedArray(shape=(1,)" in line
    assert "choose an environment that has them" in line
    assert not any(folder.iterdir())


def test_cli_missing_package_names_the_remedy(capfd, folder, monkeypatch):
    def make(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed,\nyou can install it")

    monkeypatch.setattr(gymnasium, "make", make)
    line = fails(capfd, "--environment", "gym:LunarLander-v3")
    assert line.startswith("environment 'gym:LunarLander-v3' needs a package that is missing: pip")
    assert not any(folder.iterdir())


def test_cli_directory_in_use_is_left_alone(capfd, folder):
    (folder / "old").mkdir()
    (folder / "old" / "file").write_text("precious")
    assert fails(capfd, "--directory", "old") == (
        "directory must be new or empty, got 'old', which holds files; "
        "choose another with --directory, remove it, or go on with it by --resume"
    )
    assert (folder / "old" / "file").read_text() == "precious"
    assert len([*folder.rglob("*")]) == 2


@pytest.mark.parametrize("default", [False, True])
def test_cli_unwritable_directory(default, capfd, folder):
    (folder / "results").write_text("a file")  # root may write anywhere, but not below a file
    args = [] if default else ["--directory", "results/toy"]
    line = fails(capfd, *args)
    assert re.fullmatch(
        "directory must be writable, got 'results/toy.*': (Not a directory|File exists); "
        "choose another with --directory",
        line,
    )
    assert [*folder.iterdir()] == [folder / "results"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("host", r"environment 0, .*: observation must be finite, got .*; mend the environment"),
        (
            "device",
            r"Faulty, environment 0, .*: observation must be finite, got nan; mend the environment",
        ),
    ],
)
def test_cli_environment_that_says_nan_ends_the_run(trainer, message, capfd, folder):
    args = ["--environment", "toy:Faulty", "--trainer", trainer, "--directory", "run"]
    with pytest.raises(SystemExit) as end:
        main(TOY, args=args)
    assert end.value.code == 4
    line = capfd.readouterr().err
    assert re.fullmatch(f"error: {message}\n", line)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert f"error: {summary['ended_by'].removeprefix('EnvironmentFault: ')}\n" == line


ENVIRONMENT = "environment 3, episode 1, step 2, after 1,203 steps"


@pytest.mark.parametrize(
    ("notes", "named"),
    [
        ([f"{ENVIRONMENT} of all"], ENVIRONMENT),
        (
            ["one of the 4 environments, after 12 steps"],
            "one of the 4 environments, after 12 steps",
        ),
        (
            [f"{ENVIRONMENT} of all", "in worker 2, whose environments count from 0:\nTraceback"],
            f"worker 2: {ENVIRONMENT}",
        ),
        (  # of an error that cannot be sent, its trace is
            [f"in worker 2, whose environments count from 0:\nTraceback\n{ENVIRONMENT} of all\n"],
            f"worker 2: {ENVIRONMENT}",
        ),
        (["in worker 2, whose environments count from 0:\nTraceback"], None),
        (["an environment, after 3 steps of all"], None),
        (["something else"], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("called", ["experiment", "rlws"])
def test_cli_error_of_an_environment_is_status_4_with_all_about_it(
    notes, named, called, capfd, monkeypatch
):
    def run(experiment):
        error = ValueError("broken\njoint")
        for note in notes:
            error.add_note(note)
        raise error

    monkeypatch.setattr(launch, "run", run)
    monkeypatch.setattr(
        sys, "argv", ["rlws", "run", "catch_reinforce"][: 1 + 2 * (called == "rlws")]
    )
    command = rlws if called == "rlws" else lambda: main(TOY)
    if named is None:
        with pytest.raises(ValueError, match="broken"):
            command()
        return
    try:
        status = command()
    except SystemExit as end:
        status = end.code
    assert status == 4
    *trace, last = capfd.readouterr().err.splitlines()
    assert last == f"error: {named}: ValueError: broken joint"
    assert trace[0] == "Traceback (most recent call last):"
    assert "raise error" in "\n".join(trace)
    assert set("\n".join(notes).split("\n")) - {""} <= set(trace)


def test_cli_error_of_an_environment_is_raised_where_the_process_is_not_ours(monkeypatch):
    def run(experiment):
        error = ValueError("broken joint")
        error.add_note(ENVIRONMENT)
        raise error

    monkeypatch.setattr(launch, "run", run)
    with pytest.raises(ValueError, match="broken joint"):
        main(TOY, args=[])


def test_ctrl_c_during_imports_is_one_line_and_130(capfd, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert rlws(["run", "catch_reinforce"]) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


@pytest.mark.slow
def test_cli_budget_of_zero_only_evaluates(folder):  # on the device: see test_run
    summary = main(TOY, args=["--steps", "0", "--directory", "run"])
    assert (summary["steps"], summary["episodes"], summary["updates"]) == (0, 0, 0)
    assert -1 <= summary["evaluation_return_mean"] <= 1
    assert json.loads((folder / "run" / "summary.json").read_text()) == summary
    assert len((folder / "run" / "metrics.csv").read_text().splitlines()) == 2


def test_cli_changes_what_it_says(monkeypatch):
    args = (
        "--seed=4 --trainer device --trainer.num-envs 2 --agent.discount .9 --agent.baseline none"
    )
    monkeypatch.setattr(launch, "run", describe)
    config = main(TOY, args=args.split())
    assert config["seed"] == 4
    assert config["trainer"] == {
        "type": "rlws.trainers.device:DeviceTrainer",
        "num_envs": 2,
        "num_devices": 1,
        "num_seeds": 1,
    }
    assert (config["agent"]["discount"], config["agent"]["baseline"]) == (0.9, "none")
    assert config["agent"]["backbone"]["hidden_sizes"] == [8]
    assert config["evaluation"]["episodes"] == 3


@pytest.mark.slow
def test_cli_imports_an_environment_of_the_current_folder_if_told(capfd, folder, monkeypatch):
    lines = (
        "from rlws.environments import Catch",
        "def maze(seed, index):",
        "    return Catch(rows=4)",
    )
    (folder / "mazes_of_mine.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    flags = "--environment", "function:mazes_of_mine:maze", "--steps", "0"
    assert "--trust (in Python: trust=True) imports it" in fails(capfd, *flags)
    main(TOY, args=[*flags, "--trust", "--directory", "run"])
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["environment"] == flags[1]


def test_cli_takes_whole_numbers_as_people_type_them():
    args = ["--steps", "2M", "--trainer.num-envs", "1e1"]
    sizes = ["--agent.backbone.hidden-sizes", "1k", "32"]
    found = parse(TOY, [*args, *sizes, "--episodes", "5_000"])
    sizes = found.agent.backbone.hidden_sizes
    assert (found.steps, found.episodes, found.trainer.num_envs) == (2_000_000, 5000, 10)
    assert sizes == (1000, 32)
    assert parse(TOY, ["--steps", "none", "--episodes", "5"]).steps is None


def test_cli_trainer_keeps_the_number_of_environments(monkeypatch):
    monkeypatch.setattr(launch, "run", lambda experiment: experiment)
    toy = dataclasses.replace(TOY, trainer=DeviceTrainer(num_envs=7))
    assert main(toy, ["--trainer=host"]) == dataclasses.replace(TOY, trainer=HostTrainer(7))
    assert main(toy, []) == toy


def test_cli_help_explains_every_setting(capfd):
    with pytest.raises(SystemExit) as end:
        main(TOY, args=["--help"])
    out, err = capfd.readouterr()
    assert (end.value.code, err) == (0, "")
    assert "--trainer {host,device,distributed}" in out
    own = out.partition("agent options")[0]
    rows = [row.strip("│ ") for row in own.splitlines()]
    bare = [rows[i] for i, row in enumerate(rows[1:]) if row.startswith("(default")]
    assert bare == []


@pytest.mark.slow
def test_cli_interrupt_exits_130_and_keeps_the_run(capfd, folder, monkeypatch):
    train = Experiment.train_all

    def interrupted(self, runs, **control):
        reports = train(self, runs, **control)
        yield next(reports)
        yield next(reports)
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "train_all", interrupted)
    with pytest.raises(SystemExit) as end:
        main(TOY, args=["--directory", "run"])
    assert end.value.code == 130
    assert capfd.readouterr().err == "interrupted\n"
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["ended_by"] == "KeyboardInterrupt"
    assert summary["steps"] > 0
    assert len((folder / "run" / "metrics.csv").read_text().splitlines()) == 3


def environment_without_path():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


QUICK = [
    "--steps",
    "0",
    "--evaluation.episodes",
    "2",
    "--agent.backbone.hidden-sizes",
    "4",
    "--directory",
    "run",
]


@pytest.mark.slow
def test_experiments_run_by_path(folder):
    """In a process of its own, as whether the packages are found is what may fail."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments/catch_reinforce.py"), *QUICK],
        cwd=folder,
        env=environment_without_path(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "evaluation_return_mean" in json.loads((folder / "run" / "summary.json").read_text())


@pytest.mark.slow
def test_experiments_run_as_module(folder, monkeypatch, capfd):
    """As by `python -m`, which calls no other function; they are found, as these tests are."""
    monkeypatch.setattr(sys, "argv", ["", *QUICK])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "experiments.catch_reinforce", raising=False)
    runpy.run_module("experiments.catch_reinforce", run_name="__main__", alter_sys=True)
    assert capfd.readouterr().err == ""
    assert "evaluation_return_mean" in json.loads((folder / "run" / "summary.json").read_text())


@pytest.mark.slow
def test_real_ctrl_c_ends_with_130(folder):
    # A shell that runs the tests in the background has their processes ignore Ctrl-C.
    listen = "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [
        sys.executable,
        "-c",
        f"{listen}; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')",
        str(ROOT / "experiments/cartpole_reinforce.py"),
        "--directory",
        "run",
    ]
    metrics = folder / "run" / "metrics.csv"
    with subprocess.Popen(
        [*command, "--steps", "100000000", "--agent.backbone.hidden-sizes", "8"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment_without_path(),
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (
            metrics.exists() and len(metrics.read_text().splitlines()) >= 2
        ):
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()
        said = process.stderr.read().splitlines()
        stopping = "stopping; once more to stop without saving"
        assert said == [stopping, "interrupted; go on with: rlws resume run"]
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["ended_by"] == "Interrupted: SIGINT"


def test_readme_of_commands_has_each_status():
    table = (ROOT / "rlws/commands/README.md").read_text()
    for module in (
        "rlws.runs.checkpointer",
        "rlws.runs.capsule",
        "rlws.environments.checks",
        "rlws.commands.cli",
    ):
        importlib.import_module(module)
    statuses = {
        error.status for error in (*ERRORS, *descendants(SettingError)) if hasattr(error, "status")
    }
    assert statuses == {2, 3, 4, 5, 6, 7, 8}
    for status in (0, 1, *statuses, "128 + N"):
        assert f"\n| {status} | " in table


def descendants(kind):
    """Returns the classes below a class that are ours."""
    below = [each for each in kind.__subclasses__() if each.__module__.startswith("rlws.")]
    return [*below, *(each for child in below for each in descendants(child))]


@pytest.mark.parametrize("buffered", [True, False])
def test_a_closed_pipe_ends_a_verb_without_a_word(buffered, capfd, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        if buffered:  # else, as by PYTHONUNBUFFERED, nothing is left to flush
            print("something")
        assert say(BrokenPipeError(), ours=True) == 141
        print("more")  # goes nowhere
    assert not capfd.readouterr().err
