"""`rlws resume`: a run goes on as if it had never stopped."""

import dataclasses
import functools
import json
import shutil

import pytest

from agents_zoo import ppo
from rlws.numerics import checkpoint
from rlws.runs import launch
from tests.commands.toys import TOY, arrays, rows, run_toy, steps, tree


def cut(run, step):
    """Takes a run back to just after a checkpoint, as if it had been killed there."""
    for other in steps(run):
        if other > step:
            shutil.rmtree(run / "checkpoints" / f"{other:012d}")
    (run / "summary.json").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 2, -2])
def test_resume_comes_to_what_the_run_did(which, toy, copy, rlws):
    cut(copy, steps(toy)[which])
    assert arrays(copy) != arrays(toy)
    assert rlws("resume", copy).status == 0
    assert arrays(copy) == arrays(toy)
    assert rows(copy) == rows(toy)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (copy, toy)]
    for summary in summaries:
        for name in ("seconds", "steps_per_second", "peak_memory_mb"):
            del summary[name]
    assert summaries[0] == summaries[1]


def test_resume_of_a_finished_run_does_nothing(copy, rlws):
    before = tree(copy)
    found = rlws("resume", copy)
    assert found.status == 0
    assert found.out.startswith(f"finished already: {copy}")
    assert "more --steps" in found.out
    assert tree(copy) == before


def test_a_budget_below_what_was_done_is_refused(toy, copy, refused):
    cut(copy, steps(toy)[-1])
    before, done = tree(copy), steps(copy)[-1]
    said = refused("resume", copy, "--steps", "30")
    assert said.startswith(f"steps must be at least the {done} that are done, got 30; ")
    assert tree(copy) == before


@pytest.mark.slow
def test_resume_with_a_larger_budget_comes_to_what_one_long_run_does(copy, tmp_path, rlws):
    assert rlws("resume", copy, "--steps", "600").status == 0
    long = run_toy(tmp_path / "long", steps=600)
    last = lambda run: {k: x for k, x in arrays(run).items() if "totals" not in k}
    assert last(copy).keys() == last(long).keys()
    differing = [k for k, x in last(copy).items() if x != last(long)[k] and "ended" not in k]
    assert differing == []
    seen = [float(row["steps"]) for row in rows(copy)]
    assert seen == sorted(set(seen))
    assert seen[-1] == 600
    assert json.loads((copy / "config.json").read_text())["steps"] == 600


@pytest.mark.parametrize(
    ("flags", "differences"),
    [
        (["--seed", "5"], "(saved, now): seed: 0, 5; use those, or make a variant: rlws fork"),
        (
            ["--agent.learning-rate", "0.5", "--trainer.num-envs", "4", "--steps", "900"],
            "(saved, now): agent.learning_rate: 0.0005, 0.5; trainer.num_envs: 2, 4; use those",
        ),
        (["--trainer", "host"], "(saved, now): trainer.type: 'rlws.trainers.device:DeviceTrainer'"),
    ],
)
def test_resume_with_other_settings_is_refused_with_what_differs(flags, differences, copy, refused):
    before = tree(copy)
    assert differences in refused("resume", copy, *flags)
    assert tree(copy) == before


@pytest.mark.slow
def test_a_setting_that_is_newer_than_the_run_has_its_default_and_is_told(
    tmp_path, rlws, monkeypatch
):
    class Older(ppo.Config):
        pass

    class Newer(ppo.Config):
        brand_new: float = 0.5

    for kind in (Older, Newer):
        kind.__module__, kind.__qualname__ = __name__, "Config"
    monkeypatch.setitem(globals(), "Config", Older)
    agent = Older(**{f.name: getattr(TOY.agent, f.name) for f in dataclasses.fields(TOY.agent)})
    run = run_toy(tmp_path / "run", agent=agent)
    monkeypatch.setitem(globals(), "Config", Newer)
    cut(run, 200)
    found = rlws("resume", run)
    assert found.status == 0
    assert "agent.brand_new is new, and 0.5" in found.err
    monkeypatch.setitem(globals(), "Config", Older)  # and one that is no more
    cut(run, 200)
    found = rlws("resume", run)
    assert found.status == 2
    assert "brand_new" in found.err
    assert "FORMER may say what became of it" in found.err
    monkeypatch.setattr(Older, "FORMER", {"brand_new": None})
    assert rlws("resume", run).status == 0


@pytest.mark.parametrize("flags", [["--directory", "elsewhere"], ["--no-resume"]])
def test_resume_stays_where_the_run_is(flags, copy, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "must not be given: that is what DIR says" in refused("resume", copy, *flags)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_resume_of_no_run_is_one_line(refused, tmp_path):
    assert "must be the folder of a run" in refused("resume", tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_resume_never_begins_afresh_where_no_checkpoint_is_whole(copy, rlws):
    (copy / "summary.json").unlink()
    for step in steps(copy):
        (copy / "checkpoints" / f"{step:012d}" / "arrays.bin").write_bytes(b"")
    before = tree(copy)
    found = rlws("resume", copy)
    assert found.status == 3
    assert found.err.splitlines()[-1].startswith("error: no checkpoint in ")
    assert tree(copy) == before


@pytest.mark.parametrize("gone", ["checkpoints", "all in it"])
@pytest.mark.parametrize("other", ["summary.json", "metrics.csv"])
def test_resume_never_begins_afresh_where_checkpoints_are_gone(gone, other, copy, refused):
    shutil.rmtree(copy / "checkpoints")
    if gone == "all in it":
        (copy / "checkpoints").mkdir()
    (copy / other).unlink()
    before = tree(copy)
    line = refused("resume", copy, "--steps", "600", status=3)
    assert line.startswith(f"{copy / 'checkpoints'} must hold a checkpoint of the run")
    assert tree(copy) == before
    assert (copy / "checkpoints").exists() is (gone == "all in it")


@pytest.mark.slow
def test_resume_says_aloud_that_rows_are_missing(copy, rlws):
    path = copy / "metrics.csv"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:-2]))  # the last is logged again
    steps = whole[-2].partition(",")[0]
    said = rlws("resume", copy, "--steps", "440").err
    assert f"metrics.csv must have a row at {steps} steps" in said


def edit(run, **changes):
    """Changes the settings of a run in its config.json, by dotted name, as one does by hand."""
    config = json.loads((run / "config.json").read_text())
    for name, value in changes.items():
        *path, last = name.split("__")
        functools.reduce(dict.__getitem__, path, config)[last] = value
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("verb", ["resume", "fork", "evaluate", "watch", "inspect"])
@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"agent__learning_rate": 0.5}, "agent.learning_rate: 0.0005, 0.5"),
        ({"seed": 4, "steps": 600}, "seed: 0, 4"),
        ({"trainer__num_envs": 4}, "trainer.num_envs: 2, 4"),
        ({"environment": "jax:Memory"}, "environment: 'jax:Catch', 'jax:Memory'"),
    ],
)
def test_settings_that_the_checkpoint_was_not_made_with_are_named(
    verb, changes, differs, copy, rlws
):
    edit(copy, **changes)
    before = tree(copy)
    found = rlws(verb, copy, *["--steps", "600"] * (verb == "resume"))
    if verb == "inspect":  # it only reads
        assert json.loads(found.out)["differs"] == [differs]
    else:
        assert found.status == 2
        assert f"is of a run of other settings (saved, now): {differs}; put those" in found.err
    assert "exact" not in found.out + found.err or verb == "inspect"
    assert tree(copy) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("versions", "versions.jax: '0.1', "),
        ("machine", "machine.threads: 99, "),
        ("nothing", "exact: resumed, it goes on as if it had never stopped"),
    ],
)
def test_exact_is_said_only_where_nothing_is_other_than_it_was(
    what, said, toy, copy, rlws, monkeypatch
):
    (name,) = checkpoint.names(toy / "checkpoints")[-1:]
    found = checkpoint.read(toy / "checkpoints" / name)
    other = {"versions": {"jax": "0.1"}, "machine": {"threads": 99}, "nothing": {}}[what]
    facts = {**found.facts, what: found.facts.get(what, {}) | other}
    shutil.rmtree(copy / "checkpoints" / name)
    checkpoint.save(copy / "checkpoints", name, found.arrays, facts, keep=9)
    monkeypatch.setattr(launch, "train", lambda *args: None)
    found = rlws("resume", copy, "--steps", "600", "--no-quiet")
    assert said in found.out + found.err
    assert ("exact: resumed" in found.out) == (what == "nothing")
    differs = json.loads(rlws("inspect", copy).out)["differs"]
    assert [text.startswith(said) for text in differs] == [True] * (what != "nothing")
