import copy

import pytest

from rlws.runs import differences
from tests.commands.folders import CONFIG


def changed(**changes):
    config = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        *path, last = name.split("__")
        holder = config
        for part in path:
            holder = holder[part]
        holder[last] = value
    return config


PPO = {"type": "agents_zoo.ppo:Config", "learning_rate": 0.1, "epochs": 4}


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([changed()], [""]),
        ([changed(), changed(seed=1, name="x", directory="y", trainer__num_seeds=5)], ["", ""]),
        ([changed(track=["jsonl"], on_track_failure="stop"), changed(resume=True)], ["", ""]),
        (
            [changed(), changed(agent__learning_rate=0.1)],
            ["learning_rate=0.003", "learning_rate=0.1"],
        ),
        (
            [changed(), changed(agent__backbone__hidden_sizes=[32], steps=7)],
            ["backbone.hidden_sizes=64,64 steps=400", "backbone.hidden_sizes=32 steps=7"],
        ),
        # Of another type, what else differs follows from that.
        ([changed(), changed(agent=PPO)], ["reinforce", "ppo"]),
        (
            [changed(), changed(agent=PPO), changed(agent=PPO | {"epochs": 9})],
            ["reinforce", "ppo epochs=4", "ppo epochs=9"],
        ),
        (
            [changed(), changed(environment="gym:CartPole-v1", agent__new=True)],
            ["jax:Catch new=none", "gym:CartPole-v1 new=true"],
        ),
        (
            [changed(), changed(agent__backbone={"type": "a.b:LSTM", "size": 3})],
            ["backbone=MLP", "backbone=LSTM"],
        ),
    ],
)
def test_labels_say_what_differs_and_nothing_else(configs, expected):
    found = differences.labels(configs)
    assert found == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, []),
        (
            {"steps": 7, "agent__learning_rate": 0.1},
            {},
            ["agent.learning_rate: 0.1, 0.003", "steps: 7, 400"],
        ),
        ({}, {"agent__new": [1, 2]}, ["agent.new: None, [1, 2]"]),
        ({}, {"agent__new": None}, []),
        (
            {"agent__terms": [{"type": "a:B", "cost": 1}]},
            {"agent__terms": [{"type": "a:B", "cost": 2}]},
            ["agent.terms.0.cost: 1, 2"],
        ),
        # Of another type, what else differs follows from that.
        (
            {"agent": PPO},
            {"steps": 7},
            ["agent.type: 'agents_zoo.ppo:Config', 'agents_zoo.reinforce:Config'", "steps: 400, 7"],
        ),
    ],
)
def test_differing_names_each_setting_with_both_values(one, other, expected):
    found = differences.differing(changed(**one), changed(**other))
    assert list(found.values()) == expected
    assert list(found) == [text.partition(":")[0] for text in expected]


def test_settings_are_those_that_decide_a_run():
    found = differences.settings(changed(agent__terms=[{"type": "a:B", "cost": 1}], video=True))
    assert found == {
        "type": "rlws.runs.experiment:Experiment",
        "environment": "jax:Catch",
        "agent.type": "agents_zoo.reinforce:Config",
        "agent.backbone.type": "rlws.networks.backbones:MLP",
        "agent.backbone.hidden_sizes": [64, 64],
        "agent.learning_rate": 0.003,
        "agent.terms.0.type": "a:B",
        "agent.terms.0.cost": 1,
        "trainer.type": "rlws.trainers.device:DeviceTrainer",
        "trainer.num_envs": 4,
        "steps": 400,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "none"), (True, "true"), (1, "1"), (0.5, "0.5"), ([], "none"), ("a_b", "a_b")],
)
def test_shown_is_short(value, expected):
    assert differences.shown(value) == expected
