"""Environments that lie, raise or hang: named before anything is learned from it, and resumable."""

import json
import re
import sys
import time

import cloudpickle
import gymnasium
import numpy as np
import pytest
from faulty import Faulty, fail, left, play, refused

from rlws import environments
from rlws.numerics import checkpoint


def wrong(fault, says, quick=False):
    return pytest.param(fault, says, marks=[pytest.mark.slow] * (not quick), id=fault)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        *(
            wrong(f"{fault}{at}", rf"{field} must be .*, got {value}", quick=at == "")
            for at in (" at 0", "", " at 10")
            for fault, field, value in (
                ("nan", r"observation\['body'\]", "nan"),
                ("infinity", r"observation\['body'\]", "inf"),
                ("nan reward", "reward", "nan"),
                ("infinite reward", "reward", "inf"),
                ("nan discount", "discount", "nan"),
            )
        ),
        wrong("exits", "must not exit"),
        wrong("nan at 5", r"observation\['body'\] must be finite"),
        *(wrong(x, "body") for x in ("one number", "a scalar", "one row")),
        wrong("another key", "timer"),
        wrong("3.7 for 3", "time"),
        wrong("discount 1.1", "discount"),
        wrong("discount -0.1", "discount"),
        wrong("first", "step_type"),
        wrong("mid at 0", "step_type"),
        wrong("last at 0", "step_type"),
        wrong("mid at 10", "step_type"),
        wrong("step type 7", "step_type"),
        wrong("four numbers", "body"),
        wrong("a list", "body"),
        wrong("2 ** 40", "time"),
        wrong("a key too many", "more"),
        wrong("a key too few", "time"),
        wrong("no dict", "observation"),
        wrong("no reward", "reward"),
        wrong("two rewards", "reward"),
        wrong("gymnasium", "TimeStep"),
        wrong("nothing", "TimeStep"),
    ],
)
def test_a_wrong_timestep_ends_the_run_and_is_named(fault, says, tmp_path, capfd):
    status, line = refused(capfd, tmp_path, "--environment", f"faulty:{fault}")
    assert (status, re.search(says, line) is not None) == (4, True), line
    at = re.search("at ([0-9]+)$", fault)
    step = int(at[1]) if at else 3
    told = f"environment 0, episode 1, step {step}"
    # An episode that should have ended, or should not have begun, shows in the step after it.
    late = fault in ("first", "mid at 10", "last at 0")
    assert (told if not late else "environment 0, episode") in line


@pytest.mark.slow
@pytest.mark.parametrize("at", [" at 0", "", " at 10"])
def test_no_checkpoint_holds_nan_and_a_mended_environment_goes_on(
    at, tmp_path, capfd, monkeypatch, in_peace
):
    flags = ("--environment", f"faulty:nan{at}")
    refused(capfd, tmp_path, *flags)
    found = checkpoint.newest(tmp_path / "checkpoints", pytest.fail)
    assert all(np.isfinite(x).all() for x in found.arrays.values() if x.dtype.kind == "f")
    monkeypatch.setattr(Faulty, "healthy", True)
    play(tmp_path, *flags)
    assert left(tmp_path) == in_peace


@pytest.mark.slow
@pytest.mark.parametrize("at", ["", " at 0", " at 10"])
def test_an_environment_that_raises_is_named_and_the_run_resumes(
    at, tmp_path, monkeypatch, in_peace
):
    name = f"faulty:raises{at}"
    monkeypatch.setattr(Faulty, "closed", 0)
    with pytest.raises(ValueError, match="broken joint") as error:
        play(tmp_path, "--environment", name)
    step = {"": 3, " at 0": 0, " at 10": 10}[at]
    assert f"environment 0, episode 1, step {step}" in error.value.__notes__[0]
    assert "fault" in str(error.traceback[-1].path)  # where it was raised, not where it was caught
    assert Faulty.closed == 2  # that of the check, that of the run
    ended_by = json.loads((tmp_path / "summary.json").read_text())["ended_by"]
    assert ended_by == "ValueError: broken joint"
    monkeypatch.setattr(Faulty, "healthy", True)
    play(tmp_path, "--environment", name)
    assert left(tmp_path) == in_peace


@pytest.mark.slow
def test_an_environment_that_hangs_is_named_and_the_run_resumes(
    tmp_path, capfd, monkeypatch, in_peace
):
    flags = ("--environment", "faulty:sleeps", "--trainer.environment-timeout", "0.5")
    status, line = refused(capfd, tmp_path, *flags)
    assert status == 4
    assert "environment 0, episode 1, step 3 must answer within environment_timeout=0.5 s" in line
    monkeypatch.setattr(Faulty, "healthy", True)
    play(tmp_path, *flags)
    assert left(tmp_path) == in_peace


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (fail(OSError("no such robot")), OSError, "no such robot"),
        (lambda seed: None, SystemExit, "must be a dm_env.Environment"),
        (lambda seed: object(), SystemExit, "must be a dm_env.Environment"),
    ],
    ids=["raises", "none", "object"],
)
def test_what_makes_no_environment_leaves_no_folder(make, kind, says, tmp_path, capfd):
    environments.register("faulty:unmade", lambda seed=0: make(seed))
    with pytest.raises(kind) as error:
        play(tmp_path / "run", "--environment", "faulty:unmade")
    said = capfd.readouterr().err + str(error.value)
    assert says in said
    assert kind is not SystemExit or "faulty:unmade" in said
    assert not (tmp_path / "run").exists()


class Fragile(gymnasium.Env):
    """Counts; raises in its second episode."""

    observation_space = gymnasium.spaces.Box(0, 20, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        if (self.episode, self.time) == (2, 4):
            raise ValueError("broken joint")
        return np.float32([self.time]), 1.0, self.time == 10, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium tells, too
def test_one_of_several_that_raises_ends_the_run_with_its_error(vectorization, tmp_path):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    gymnasium.register("Fragile-v0", Fragile)
    flags = ("--trainer.vectorization", vectorization, "--trainer.num-envs", "2")
    try:
        with pytest.raises(ValueError, match="broken joint") as error:
            play(tmp_path, "--environment", "gym:Fragile-v0", *flags)
    finally:
        del gymnasium.registry["Fragile-v0"]
    which = "0" if vectorization == "sync" else "[01]"
    told = f"environment {which}, episode 1, step 4, after 26 steps of all"
    assert re.fullmatch(told, error.value.__notes__[0])
    found = checkpoint.newest(tmp_path / "checkpoints", pytest.fail)
    assert found.facts["step"] == 26
    assert not found.facts["exact"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["last", "none"])
def test_episodes_may_end_anywhere(fault, tmp_path):
    # With discount 1, so as if truncated.
    assert play(tmp_path, "--environment", f"faulty:{fault}")["steps"] == 60


class Strict(Faulty):
    """Raises where it is stepped after the end."""

    def step(self, action):
        if self._time is None:
            raise RuntimeError("step after LAST")
        return super().step(action)


@pytest.mark.slow
def test_an_environment_may_refuse_to_be_stepped_after_the_end(tmp_path, in_peace):
    make = lambda seed=0, index=0: Strict(lambda x: x, 3, seed, index)
    environments.register("faulty:strict", make)
    play(tmp_path, "--environment", "faulty:strict")
    assert left(tmp_path) == in_peace


@pytest.mark.slow
def test_an_episode_that_does_not_repeat_is_told_of(tmp_path, capfd):
    flags = ("--environment", "faulty:drifts")
    play(tmp_path, *flags, "--steps", "13")
    kept = lambda: checkpoint.newest(tmp_path / "checkpoints", pytest.fail).facts
    assert kept()["exact"]
    summary = play(tmp_path, *flags)
    (warning,) = (x for x in summary["warnings"] if "repeat" in x)
    assert warning.startswith("warning at 13 steps: environment 0 could not repeat episode 1")
    assert kept()["trainer"]["anew"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exact"), [("faulty:none", True), ("faulty:unseeded", False)], ids=["exact", "bounded"]
)
def test_the_class_of_a_run_is_tried_and_said(name, exact, tmp_path, capfd):
    play(tmp_path, "--environment", name, "--no-quiet")
    assert ("exact: resumed" in capfd.readouterr().out) == exact
    found = checkpoint.newest(tmp_path / "checkpoints", pytest.fail)
    assert found.facts["exact"] == exact


@pytest.mark.parametrize("name", ["faulty:made slowly", "faulty:tried slowly"])
def test_an_environment_that_hangs_before_the_run_is_named(name, tmp_path, capfd):
    def made_slowly(seed=0):
        time.sleep(60)

    class TriedSlowly(Faulty):
        def reset(self):
            time.sleep(60)

    environments.register("faulty:made slowly", made_slowly)
    environments.register("faulty:tried slowly", lambda seed=0: TriedSlowly(None, 3, seed))
    flags = ("--environment", name, "--trainer.environment-timeout", "0.5")
    status, line = refused(capfd, tmp_path / "run", *flags)
    assert status == 4
    assert re.search("environment 0, when it is (made|tried), must answer within", line)
    assert not (tmp_path / "run").exists()
