"""`rlws inspect`: what a checkpoint holds, as JSON."""

import json

import pytest

from agents_zoo import dqn
from rlws.networks import MLP
from rlws.trainers import HostTrainer
from tests.commands.toys import run_toy, steps, tree

HASHES = {
    f"sha256_{part}"
    for part in ("parameters", "optimiser", "replay", "environments", "random_state")
}


@pytest.fixture
def inspected(rlws):
    def inspect(*args):
        found = rlws("inspect", *args)
        assert (found.status, found.err) == (0, "")
        return json.loads(found.out)

    return inspect


def hashes(found):
    return {name: found[name] for name in HASHES}


def test_inspect_says_what_there_is_and_changes_nothing(copy, inspected):
    before = tree(copy)
    found = inspected(copy)
    assert {"step", "resume_class", *HASHES} <= found.keys()
    assert (found["step"], found["resume_class"]) == (400, "exact")
    assert (found["experiment"], found["seed"], found["forked_from"]) == ("toy", 0, None)
    assert found["checkpoint"] == f"{400:012d}"
    size = (copy / "checkpoints" / found["checkpoint"] / "arrays.bin").stat().st_size
    assert found["bytes"] == size
    assert found["versions"]["jax"]
    assert all(len(x) == 64 and int(x, 16) >= 0 for x in hashes(found).values())
    assert len(set(hashes(found).values())) == len(HASHES)
    assert tree(copy) == before


@pytest.mark.slow
def test_equal_runs_have_equal_hashes_and_others_have_not(toy, inspected, tmp_path):
    again, other = run_toy(tmp_path / "again"), run_toy(tmp_path / "other", seed=1)
    assert hashes(inspected(again)) == hashes(inspected(toy))
    assert not set(hashes(inspected(other)).values()) & set(hashes(inspected(toy)).values())


def test_inspect_at_a_step(toy, inspected):
    first, *_, last = (inspected(toy, "--at", step) for step in steps(toy))
    assert first["step"] == 0
    assert last == inspected(toy)
    assert not set(hashes(first).values()) & set(hashes(last).values())


@pytest.mark.slow
def test_random_state_on_a_host_is_that_of_a_seed(inspected, tmp_path):
    made = dict(trainer=HostTrainer(), steps=0)
    runs = [run_toy(tmp_path / str(seed), **made, seed=seed) for seed in (0, 1)]
    states = [inspected(run)["sha256_random_state"] for run in (*runs, runs[0])]
    assert states[0] != states[1]
    assert states[0] == states[2]


@pytest.mark.slow
def test_parts_of_a_host_run_with_a_replay_are_all_there(inspected, tmp_path):
    agent = dqn.Config(MLP((4,)), capacity=100, min_size=20, batch_size=4)
    made = dict(environment="gym:CartPole-v1", agent=agent, trainer=HostTrainer(), steps=60)
    run, again = (run_toy(tmp_path / name, **made) for name in ("run", "again"))
    found = inspected(run)
    assert found["resume_class"] == "exact"
    assert len(set(hashes(found).values())) == len(HASHES)
    assert hashes(inspected(again)) == hashes(found)
    other = inspected(run_toy(tmp_path / "other", **made, seed=1))
    assert not set(hashes(other).values()) & set(hashes(found).values())


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("none", 2, "must be the folder of a run"),
        ("empty", 2, "must hold a checkpoint, got none"),
        ("damaged", 3, "no checkpoint in "),
    ],
)
def test_inspect_explains_in_one_line(name, status, message, copy, tmp_path, rlws):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((copy / "config.json").read_text())
    (copy / "checkpoints").rename(copy.with_name("kept"))
    damaged = tmp_path / "damaged" / "checkpoints" / f"{1:012d}"
    damaged.mkdir(parents=True)
    (tmp_path / "damaged" / "config.json").write_text("{}")
    found = rlws("inspect", tmp_path / name)
    assert (found.status, found.out) == (status, "")
    assert message in found.err.splitlines()[-1]
