"""Checks of entropy and temperature: right ones pass, wrong signs and foreign settings are told."""

import dataclasses

import pytest

from agents_zoo import a2c, sac
from rlws.diagnose.entropy import check_entropy
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import Tabular, make_table
from rlws.networks import MLP
from rlws.settings import Fraction
from tests.diagnose.test_doctor import planted

SMALL = dict(backbone=MLP((8,)))
REPLAY = dict(SMALL, capacity=64, min_size=8, batch_size=4)


class Peaked(a2c.A2C):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss + 2 * self.config.entropy_cost * metrics["entropy"], metrics


class Backwards(sac.SAC):
    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        name = "log_temperature"
        turned = 2 * state.params[name] - after.params[name]
        return after._replace(params={**after.params, name: turned}), metrics


class Relative(sac.Config):
    target_entropy: Fraction = 0.5  # of the largest there can be


def verdicts(config, continuous=False):
    checks = check_entropy(Subject(config, Tabular(make_table(), continuous).spec()))
    return {check.name.removeprefix("learner: "): check.verdict for check in checks}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "continuous", "expected"),
    [
        (a2c.Config(**SMALL), False, {"entropy": "pass"}),
        (a2c.Config(**SMALL), True, {"entropy": "pass"}),
        (dataclasses.replace(planted(a2c, Peaked), **SMALL), False, {"entropy": "fail"}),
        (sac.Config(**REPLAY), True, {"temperature": "pass"}),
        (dataclasses.replace(planted(sac, Backwards), **REPLAY), True, {"temperature": "fail"}),
        (Relative(**REPLAY), True, {}),
    ],
    ids=["bonus", "continuous", "peaked", "temperature", "backwards", "relative"],
)
def test_entropy_signs(config, continuous, expected):
    assert verdicts(config, continuous) == expected
