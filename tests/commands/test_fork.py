"""`rlws fork`: another future for a run, from the same state with the same random numbers."""

import json

import pytest

from agents_zoo import reinforce
from rlws.networks import MLP
from rlws.trainers import HostTrainer
from tests.commands.toys import arrays, rows, run_toy, steps, tree


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 2])
def test_fork_without_a_change_is_its_parent_bit_for_bit(which, toy, copy, rlws):
    step = steps(toy)[which]
    before = tree(copy)
    found = rlws("fork", copy, "--at", step + 1)
    assert found.status == 0
    there = ", ".join(map(str, steps(toy)))
    said = f"forked from step {step} (asked for {step + 1}; there are {there})"
    assert found.out.splitlines()[0] == said
    fork = copy.with_name("toy-fork")
    assert arrays(fork, step) == arrays(toy, step)
    assert arrays(fork) == arrays(toy)
    assert rows(fork) == rows(toy)
    assert steps(fork)[-1] == steps(toy)[-1]
    assert tree(copy) == before


@pytest.mark.slow
def test_forks_with_a_change_begin_alike_end_apart_and_are_equal(toy, copy, rlws):
    step = steps(toy)[2]
    flags = ("--agent.learning-rate", "1e-2", "--name", "fast")
    found = rlws("fork", copy, "--at", step, *flags)
    assert found.status == 0
    assert found.out.splitlines()[0] == f"forked from step {step}"
    fork, again = copy.with_name("toy-fast"), copy.with_name("toy-again")
    assert rlws("fork", copy, "--at", step, *flags[:2], "--name", "again").status == 0
    assert arrays(again) == arrays(fork)
    assert rows(again) == rows(fork)
    assert arrays(fork, step) == arrays(toy, step)
    end, parent = arrays(fork), arrays(toy)
    alike = {name for name, x in end.items() if x == parent[name]}
    assert {name for name in end if name.startswith("run/keys/")} <= alike
    assert not [name for name in alike if name.endswith("policy/linear/w")]
    # What follows is played by the same parameters with the same random numbers.
    seen, known = rows(fork), rows(toy)
    following = next(row["steps"] for row in known if float(row["steps"]) > step)
    played = lambda table: [
        {k: row.get(k) for k in ("steps", "episodes", "updates", "episode_return")}
        for row in table
        if float(row["steps"]) <= float(following)
    ]
    assert played(seen) == played(known)
    assert seen != known
    config = json.loads((fork / "config.json").read_text())
    assert config["agent"]["learning_rate"] == 1e-2
    assert json.loads(rlws("inspect", fork, "--at", step).out)["forked_from"] == {
        "run": "toy",
        "step": step,
    }


@pytest.mark.slow
def test_fork_of_a_fork_goes_on_longer(copy, rlws):
    assert rlws("fork", copy, "--name", "a", "--steps", "440").status == 0
    fork = copy.with_name("toy-a")
    assert steps(fork)[0] == 400
    assert rlws("fork", fork, "--name", "b", "--steps", "480").status == 0
    assert steps(copy.with_name("toy-a-b"))[-1] == 480


def test_fork_at_a_step_before_all_names_those_there_are(copy, refused):
    error = refused("fork", copy, "--at", "-1", status=3)
    assert error.startswith("no checkpoint at or before step -1 in ")
    assert error.endswith("have " + ", ".join(map(str, steps(copy))))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "a/b"], "--name must be that of a folder, got 'a/b'"),
        (["--name", ""], "--name must be that of a folder, got ''"),
        (["--directory", "elsewhere"], "--directory must not be given"),
        (["--no-resume"], "--resume must not be given"),
        (["--seed", "5"], "--seed must not be given: a fork has a folder beside its run's, and"),
        (["--trainer", "host"], "--trainer must be the run's"),
        (["--trainer.num-seeds", "2"], "a fork must be one run, got several"),
        (["--sweep", "agent.discount=0.1,0.2"], "a fork must be one run, got several"),
        (
            ["--agent.backbone.hidden-sizes", "5"],
            "linear/w: saved float32[50, 8], now float32[50, 5]",
        ),
        (["--trainer.num-envs", "4"], "use the settings it was saved with"),
        (["--agent.learning-rate", "-1"], "agent.learning-rate must be greater than 0"),
        (["--agent.learning-rat", "1"], "did you mean --agent.learning-rate?"),
    ],
)
def test_fork_that_cannot_be_is_refused_and_leaves_nothing(
    flags, message, copy, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = tree(copy)
    assert message in refused("fork", copy, *flags)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]
    assert tree(copy) == before


def test_fork_needs_a_new_name(copy, refused):
    copy.with_name("toy-fork").mkdir()
    assert "--name must be new, got 'fork': toy-fork exists already" in refused("fork", copy)


def test_fork_of_no_run_is_one_line(refused, tmp_path):
    assert "must be the folder of a run" in refused("fork", tmp_path / "none")


@pytest.mark.slow
def test_fork_of_a_sweep_is_of_one_of_its_runs(rlws, refused, tmp_path):
    small = dict(agent=reinforce.Config(backbone=MLP((4,))), trainer=HostTrainer())
    sweep = run_toy(tmp_path / "sweep", **small, steps=60, sweep=("agent.discount=0.5,0.9",))
    assert "holds 2 runs; name one of the folders in it" in refused("fork", sweep)
    member = sorted(sweep.glob("*seed0"))[0]
    assert rlws("fork", member, "--steps", "100", "--name", "on").status == 0
    assert steps(member.with_name(f"{member.name}-on"))[-1] == 100
