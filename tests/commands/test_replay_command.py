"""`rlws replay`: the update that came to NaN, once more."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest

from agents_zoo import reinforce
from rlws.__main__ import main
from rlws.commands import replay
from rlws.networks import MLP
from rlws.runs import capsule, launch
from rlws.runs.experiment import Experiment
from rlws.runs.health import NonFiniteError
from rlws.runs.policy import made
from rlws.settings import describe
from rlws.trainers import DeviceTrainer, HostTrainer, initial

LINES = pathlib.Path(__file__).read_text().splitlines()


class Negative(reinforce.Reinforce):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss + jnp.log(0.5 - state.updates), metrics  # negative


class Pointed(reinforce.Reinforce):
    """Its loss is finite, always."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        distance = jnp.sqrt(jnp.square(loss * jnp.maximum(0.0, 1.0 - state.updates)))  # pointed
        return loss + distance, metrics


class Config(reinforce.Config):
    learner: str = "Negative"

    def make(self, spec):
        agent = super().make(spec)
        found = agent.learner
        kind = {"Negative": Negative, "Pointed": Pointed}[self.learner]
        return dataclasses.replace(agent, learner=kind(found.network, found.optimizer, self))


def experiment(kind, trainer, folder):
    return Experiment(
        name="nan",
        environment="jax:Catch",
        agent=Config(MLP((4,)), episodes_per_update=2, learner=kind),
        trainer=trainer,
        steps=100,
        directory=str(folder),
        quiet=True,
    )


def ran(folder):
    """A run whose second update came to NaN."""
    with pytest.raises(NonFiniteError, match=r"rlws replay .*capsule --eager"):
        launch.run(experiment("Negative", HostTrainer(num_envs=2), folder))


def written(folder):
    """A capsule without a run, which takes a third of the time.

    There is no experience in it, for which losses do not count; their gradients come to NaN still.
    """
    folder.mkdir()
    found = experiment("Pointed", DeviceTrainer(num_envs=2), folder)
    agent, spec = made(found)
    state = jax.jit(lambda: initial.init(agent, spec, found.seed, 2))()
    state = state._replace(learner=state.learner._replace(updates=jnp.int32(1)))
    capsule.write(folder, found, state, {"experiment": describe(found), "steps": 24, "updates": 1})


@pytest.fixture(
    scope="module",
    params=[("Negative", ran), ("Pointed", written)],
    ids=lambda param: param[0],
)
def kept(request, tmp_path_factory):
    """The kind of a learner whose second update comes to NaN, and the folder of the run."""
    kind, make = request.param
    folder = tmp_path_factory.mktemp("nan") / "run"
    make(folder)
    return kind, folder


def line(mark):
    (found,) = [i for i, text in enumerate(LINES, 1) if text.endswith(f"  # {mark}")]
    return f"  {pathlib.Path(__file__).name}:{found} in "


@pytest.mark.slow
def test_replay_says_what_is_not_finite(kept, capsys):
    kind, folder = kept
    assert main(["replay", str(folder / "capsule")]) == 5
    first, *wrong = capsys.readouterr().out.splitlines()
    assert first.startswith("update 2, at ")
    assert first.endswith(" steps:")
    names = [text.split(":")[0].strip() for text in wrong]
    if kind == "Negative":
        assert "metrics/loss" in names
    else:  # only its gradient is not
        assert names[0] == "metrics/gradient_norm"
        assert "metrics/loss" not in names
        assert any(name.startswith("updated parameters/") for name in names)


@pytest.mark.slow
def test_replay_names_the_operation_and_its_line(kept, capsys):
    kind, folder = kept
    assert main(["replay", str(folder / "capsule"), "--eager"]) == 5
    told = capsys.readouterr().out.splitlines()
    nan = next(i for i, text in enumerate(told) if "the first NaN comes from" in text)
    if kind == "Negative":
        assert told[nan] == "the first NaN comes from log float32[], in"
        assert told[nan + 1].startswith(line("negative"))
    else:  # a pole times zero
        assert told[nan].startswith("the first NaN comes from mul float32[")
        assert told[nan + 1].startswith(line("pointed"))
        assert any(text.startswith("the first infinity comes from div ") for text in told)
    assert not any(text.startswith("  replay.py") for text in told)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [("Pointed", written)], indirect=True, ids=["Pointed"])
def test_replay_on_a_terminal_steps_through_the_update_uncompiled(kept, capsys, monkeypatch):
    _, folder = kept
    taken = []

    def runcall(function):
        assert jax.config.jax_disable_jit
        taken.append(function.__name__)

    monkeypatch.setattr(replay.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(replay.pdb, "runcall", runcall)
    assert main(["replay", str(folder / "capsule")]) == 5
    assert taken == []
    assert main(["replay", str(folder / "capsule"), "--eager"]) == 5
    assert taken == ["take"]
    assert not jax.config.jax_disable_jit


@pytest.mark.parametrize("name", [".", "checkpoints/..", "none"])
def test_replay_of_no_capsule_is_one_line(name, tmp_path, capsys):
    for inner in ("checkpoints", "capsule"):  # in the folder of a run, but not that itself
        (tmp_path / inner / f"{24:012d}").mkdir(parents=True)
    assert main(["replay", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "must be the capsule of a run, got none; see `rlws replay -h`" in error


@pytest.mark.slow
def test_replay_of_a_damaged_capsule_is_one_line(kept, tmp_path, capsys):
    _, folder = kept
    (part,) = (folder / "capsule").iterdir()
    copy = tmp_path / "capsule" / part.name
    copy.mkdir(parents=True)
    for file in part.iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        (copy / file.name).write_bytes(data)
    assert main(["replay", str(tmp_path / "capsule")]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is whole" in error
