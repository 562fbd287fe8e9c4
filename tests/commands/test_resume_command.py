"""`rlws resume`: a run goes on as if it had never stopped."""

import dataclasses
import json
import shutil

import pytest

from agents_zoo import ppo
from rlws.runs import folders
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
            "(saved, now): agent.learning_rate: 0.001, 0.5; trainer.num_envs: 2, 4; use those",
        ),
        (["--trainer", "host"], "(saved, now): trainer.type: 'rlws.trainers.device:DeviceTrainer'"),
    ],
)
def test_resume_with_other_settings_is_refused_with_what_differs(flags, differences, copy, refused):
    before = tree(copy)
    assert differences in refused("resume", copy, *flags)
    assert tree(copy) == before


def test_resume_asks_the_checkpoint_what_it_was_made_with(copy, refused):
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(
        text.replace('"learning_rate": 0.001', '"learning_rate": 0.5')
    )
    said = refused("resume", copy, "--steps", "500")
    assert f"{copy}/checkpoints/000000000400 is of a run of other settings (saved, now): " in said
    assert "agent.learning_rate: 0.001, 0.5; use those" in said


@pytest.mark.slow
def test_exact_is_said_only_where_nothing_is_another(copy, rlws, monkeypatch):
    for changed in ({}, {"processor": "another"}, {"threads": 1}):
        here = folders.machine() | changed
        monkeypatch.setattr(folders, "machine", lambda here=here: here)
        cut(copy, 100)
        found = rlws("resume", copy, "--no-quiet")
        assert found.status == 0
        assert ("exact: resumed" in found.out) == (not changed)
        assert all(f"machine.{name}: " in found.err for name in changed)
        assert ("not exact: it may go on otherwise" in found.err) == bool(changed)


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
    assert "agent.brand_new: 0.5, a setting that is newer" in found.err
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


def test_resume_says_aloud_that_rows_are_missing(copy, rlws):
    path = copy / "metrics.csv"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:-2]))  # the last is logged again
    steps = whole[-2].partition(",")[0]
    said = rlws("resume", copy, "--steps", "440").err
    assert f"metrics.csv must have a row at {steps} steps" in said
