"""Run folders, read again: what is there, what may go on in them, and what is refused."""

import dataclasses
import json

import pytest

from rlws.numerics import checkpoint
from rlws.runs import folders
from rlws.settings import SettingError, describe
from tests.commands.folders import CONFIG, write_run, write_seeds
from tests.commands.toys import TOY


def write(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    return folder


def test_experiment_of_a_folder_is_the_one_that_ran(tmp_path):
    assert folders.experiment_of(write(tmp_path, describe(TOY))) == TOY
    assert folders.experiment_of(str(tmp_path)) == TOY


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "config.json cannot be read: Expecting value"),
        ('{"type": ', "config.json cannot be read: Expecting value"),
        ("\x00\x01", "config.json cannot be read"),
        ("[1, 2]", "config.json must hold a JSON object, got list"),
        ("{}", "config.json must describe an Experiment, got dict"),
        (describe(TOY.agent), "config.json must describe an Experiment, got Config"),
        (describe(TOY) | {"steps": -3}, r"steps must be at least 0 and at most 1e\+15, got -3"),
        (describe(TOY) | {"stepz": 3}, "setting of Experiment: unknown value 'stepz'"),
        (
            describe(TOY) | {"agent": {"type": "gone:Config"}},
            r"config\.json\.agent: there is no",
        ),
        (
            describe(TOY) | {"agent": None},
            r"Experiment\.agent must be settings of kind Agent",
        ),
        (dict(list(describe(TOY).items())[:2]), "Experiment needs agent, environment, got none"),
    ],
)
def test_experiment_of_a_damaged_folder_is_refused_in_words(config, message, tmp_path):
    with pytest.raises(SettingError, match=message):
        folders.experiment_of(write(tmp_path, config))


def test_experiment_of_no_run_says_where_runs_are(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SettingError, match=r"must be the folder of a run.*results/EXPERIMENT"):
            folders.experiment_of(folder)


def test_members_are_those_of_a_sweep_or_the_run_itself(tmp_path):
    assert folders.members(write_run(tmp_path / "run")) == [tmp_path / "run"]
    sweep = write_seeds(tmp_path / "sweep", [1.0, 2.0])
    assert folders.members(sweep) == [sweep / "0_seed0", sweep / "1_seed1"]


@pytest.mark.parametrize(
    ("summary", "budget", "whether"),
    [
        ({"steps": 400, "episodes": 9}, (400, None), True),
        ({"steps": 403, "episodes": 9}, (400, None), True),
        ({"steps": 400, "episodes": 9}, (401, None), False),
        ({"steps": 400, "episodes": 9}, (None, 9), True),
        ({"steps": 400, "episodes": 9}, (None, 10), False),
        ({"steps": 400, "episodes": 9}, (500, 9), True),  # whichever comes first
        ({"steps": 400, "episodes": 9, "ended_by": "Interrupted"}, (400, None), False),
        ({"steps": 400, "episodes": 9, "members": 2}, (200, None), True),
        ({"steps": 400, "episodes": 9, "members": 2}, (201, None), False),
        ({}, (0, None), False),
    ],
)
def test_finished_is_what_has_spent_its_budget(summary, budget, whether, tmp_path):
    write_run(tmp_path, summary=summary)
    found = folders.finished(tmp_path, *budget)
    assert found == (summary if whether else None)


def change(**fields):
    return describe(dataclasses.replace(TOY, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 7, "episodes": 3},
        {"name": "other", "directory": "x", "quiet": False, "video": True, "resume": True},
        {"track": ("jsonl",), "on_track_failure": "stop"},
        {"evaluation": dataclasses.replace(TOY.evaluation, episodes=9)},
        {"checkpoint": dataclasses.replace(TOY.checkpoint, period=9)},
    ],
)
def test_a_run_may_go_on_longer_and_be_kept_otherwise(fields, tmp_path):
    folders.check_same(change(**fields), write(tmp_path, describe(TOY)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 4}, "(saved, now): seed: 0, 4; use those, or make a variant: rlws fork"),
        (
            {"agent": dataclasses.replace(TOY.agent, learning_rate=0.5), "steps": 7, "seed": 1},
            "(saved, now): agent.learning_rate: 0.0005, 0.5; seed: 0, 1; use",
        ),
        (
            {"trainer": dataclasses.replace(TOY.trainer, num_envs=5)},
            "(saved, now): trainer.num_envs: 2, 5; use",
        ),
    ],
)
def test_a_run_of_other_settings_is_refused_with_what_differs(fields, message, tmp_path):
    with pytest.raises(SettingError) as error:
        folders.check_same(change(**fields), write(tmp_path, describe(TOY)))
    assert message in str(error.value)


def test_a_sweep_goes_on_as_long_as_was_said_at_first(tmp_path):
    several = change(sweep=("agent.discount=0.9,0.99",))
    write(tmp_path, several)
    folders.check_same(several, tmp_path)
    with pytest.raises(SettingError, match=r"steps: \d+, 7; .* rlws fork of one of the runs in it"):
        folders.check_same(several | {"steps": 7}, tmp_path)


def test_a_run_killed_before_it_wrote_anything_is_any_run(tmp_path):
    folders.check_same(describe(TOY), write(tmp_path, ""))


def test_a_run_whose_settings_were_lost_is_that_of_its_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "checkpoints", "1", {}, {"experiment": describe(TOY)})
    folders.check_same(describe(TOY), write(tmp_path, ""))
    with pytest.raises(SettingError, match="seed: 0, 4; use those"):
        folders.check_same(change(seed=4), tmp_path)
    (tmp_path / "checkpoints" / "1" / "arrays.bin").write_bytes(b"more")
    with pytest.raises(checkpoint.CheckpointError):
        folders.check_same(describe(TOY), tmp_path)


def test_reading_does_not_need_the_classes(tmp_path):
    write(tmp_path, CONFIG | {"agent": {"type": "gone:Config"}})
    assert folders.configuration(tmp_path)["agent"] == {"type": "gone:Config"}
    assert folders.summary(tmp_path) == {}


def test_a_run_that_knows_classes_by_older_names_is_read(tmp_path):
    old = json.dumps(describe(TOY)).replace(
        "rlws.runs.experiment:Checkpoints", "rlws.keeper:Checkpoints"
    )
    old = old.replace("rlws.runs.experiment:", "rlws.experiment:")
    assert old != json.dumps(describe(TOY))
    folder = write(tmp_path, old)
    assert folders.experiment_of(folder) == TOY
    folders.check_same(describe(TOY), folder)
