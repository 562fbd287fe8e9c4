"""The doctor: healthy agents pass, planted bugs are named where they are."""

import dataclasses
import io
import re

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from agents_zoo import a2c, ddpg, dqn, impala, ppo, reinforce, sac, td3
from rlws import networks
from rlws.__main__ import main
from rlws.actor import PolicyActor
from rlws.diagnose import Check, Report, diagnose, show
from rlws.settings import SettingError
from rlws.testing import AgentConformance
from tests.diagnose.healthy import PARTS

NO_MASKS = ("actor", "adder", "learner", *(f"P{i} " for i in (*range(1, 11), 12, 13)))


def names(report):
    return {check.name for check in report.failures}


class SignFlipped(ppo.PPO):
    def samples(self, params, trajectory):
        found = super().samples(params, trajectory)
        extras = {**found.extras, "advantage": -found.extras["advantage"]}
        return found._replace(extras=extras)


class TruncationEnds(ppo.PPO):
    def samples(self, params, trajectory):
        ended = trajectory.discount * (1 - trajectory.last)
        return super().samples(params, trajectory._replace(discount=ended))


class NoDiscount(ppo.PPO):
    def samples(self, params, trajectory):
        config = dataclasses.replace(self.config, discount=1.0)
        return dataclasses.replace(self, config=config)._plain(params, trajectory)

    def _plain(self, params, trajectory):
        return ppo.PPO.samples(self, params, trajectory)


class Summed(a2c.A2C):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss * jax.lax.psum(jnp.ones(()), "batch"), metrics


class FrozenTarget(dqn.DQN):
    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        return after._replace(extra=state.extra), metrics


class Misshapen(ppo.PPO):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss @ jnp.ones(3), metrics


def planted(module, learner):
    class Config(module.Config):
        def make(self, spec):
            agent = super().make(spec)
            fields = {
                f.name: getattr(agent.learner, f.name) for f in dataclasses.fields(agent.learner)
            }
            return dataclasses.replace(agent, learner=learner(**fields))

    return Config()


def shown(report):
    text = io.StringIO()
    show(report, Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "failed", "advice"),
    [
        (planted(ppo, SignFlipped), "P4 bandit", "sign of the advantage"),
        pytest.param(
            planted(ppo, NoDiscount),
            "P3 reward later",
            "the discount is ignored",
            marks=pytest.mark.thorough,
        ),
        (planted(a2c, Summed), "learner: copies", "number of steps"),
        (planted(dqn, FrozenTarget), "learner: extra", "target network"),
    ],
    ids=["sign", "discount", "sum", "target"],
)
def test_planted_bugs_are_named(config, failed, advice):
    report = diagnose(config, only=[failed], seeds=2, steps=1000)
    (check,) = report.failures
    assert (check.name, report.healthy) == (failed, False)
    assert advice in check.advice
    assert check.component.split()[-1].split(".")[0] in (
        "SignFlipped", "NoDiscount", "PPO", "Summed", "DQN", "FrozenTarget"
    )  # fmt: skip
    assert advice in shown(report)
    assert "not healthy" in shown(report)


@pytest.mark.slow
def test_a_healthy_agent_passes_and_says_what_does_not_apply():
    report = diagnose(a2c.Config(), only=["actor: ", "P8", "P9"])
    assert report.healthy
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["P8 memory"] == verdicts["P9 bound"] == "skip"
    assert verdicts["actor: frequencies"] == "pass"


def test_what_cannot_be_compiled_is_one_line_with_its_place():
    report = diagnose(planted(ppo, Misshapen))
    (check,) = report.checks
    assert (check.name, check.verdict) == ("agent: shapes", "fail")
    assert re.fullmatch(r"diagnose/test_doctor\.py:\d+ loss", check.component)
    assert check.advice.startswith("TypeError: ")
    assert "\n" not in check.advice


class TwoActions(PolicyActor):
    """Acts in training, and not in evaluation."""

    def select_action(self, params, timestep, state, key):
        action, *rest = super().select_action(params, timestep, state, key)
        return jnp.stack([action] * 2), *rest


class Unplayable(a2c.Config):
    def make(self, spec):
        agent = super().make(spec)
        return dataclasses.replace(agent, evaluator=TwoActions(agent.actor.network, greedy=True))


def test_an_evaluator_that_cannot_act_is_one_line_with_its_place():
    (check,) = diagnose(Unplayable()).checks
    assert (check.name, check.verdict) == ("agent: shapes", "fail")
    assert re.fullmatch(r".*test_doctor\.py:\d+ TwoActions\.select_action", check.component)
    assert check.advice.startswith("policy: action must be int32[], as the spec says, got int32[2]")


@pytest.mark.slow
def test_an_agent_without_values_is_not_asked_for_them():
    report = diagnose(reinforce.Config(baseline="none"), only=["P1 "], seeds=2)
    (check,) = report.checks
    assert (check.verdict, check.got) == ("skip", "no value function")


def test_the_first_failure_is_told_and_the_others_are_folded_below_it():
    fail = lambda name: Check(name, "", "", "", "fail", "mine.py:1 Mine.loss", f"mend {name}")
    text = shown(Report("mine", [fail("learner: split"), fail("P3 later"), fail("P6 cut")], 1.0))
    assert "may follow from it: P3 later, P6 cut" in text
    assert "mend learner: split" in text
    assert "mend P3" not in text


FILE = """
from agents_zoo import ppo

class Config(ppo.Config):
    pass
"""


@pytest.mark.slow
def test_the_command_takes_files_and_settings_and_exits_by_health(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    args = ["diagnose", str(file), "--set", "normalise_advantages=false", "--only", "actor"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "mine:Config: healthy" in out
    assert "actor: log_prob" in out
    args = ["--seeds", "2", "--steps", "40", "--only", "P5"]
    assert main(["diagnose", "agents_zoo.dqn", *args]) == 1  # in so few steps


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["agents_zoo.nothing"], "No module named 'agents_zoo.nothing'"),
        (["nothing.py"], "there is no such file"),
        (["agents_zoo.ppo:PP"], "unknown value 'PP'"),
        (["agents_zoo.ppo", "--set", "clip"], "--set must be name=value"),
        (["agents_zoo.ppo", "--set", "clp=1"], "no setting 'clp'"),
        (["agents_zoo.ppo", "--set", "clip=-1"], "Config.clip must be greater than 0"),
    ],
)
def test_wrong_targets_are_named(args, message, capsys):
    assert main(["diagnose", *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.thorough
def test_all_fails_that_a_bug_brings_about():
    report = diagnose(planted(ppo, TruncationEnds), only=NO_MASKS, seeds=2, steps=1000)
    learner = {f"learner: {name}" for name in ("bootstrap", "ends", "truncation")}
    assert names(report) == {*learner, "P6 truncation"}
    for check in report.failures:
        if check.name.endswith("truncation"):
            assert "truncation is treated as termination" in check.advice
        assert check.component.split()[-1].split(".")[0] in ("TruncationEnds", "PPO")
    assert "truncation is treated as termination" in shown(report)


# Each is asked once, with as many seeds as show it; PPO as `rlws diagnose` asks. Some are asked for
# parts alone: `python -m tests.diagnose.healthy` sets all agents all problems. Of masks, which
# `networks.compose` knows about and agents do not, the probe is played by PPO, and by DQN, which
# explores by itself.


@pytest.mark.slow
class TestPPO(AgentConformance):
    config = ppo.Config()
    test_host_and_device_agree = None  # as tests/agents_zoo/test_ppo.py has it, on CartPole


@pytest.mark.thorough
class TestRecurrentPPO(AgentConformance):
    config = ppo.Config(backbone=networks.GRU())
    only = PARTS
    test_host_and_device_agree = None  # likewise


@pytest.mark.thorough
class TestContinuousPPO(AgentConformance):
    config = ppo.Config()
    actions = "continuous"
    only = PARTS


@pytest.mark.thorough
class TestReinforce(AgentConformance):
    config = reinforce.Config()
    seeds, only = 3, NO_MASKS


@pytest.mark.thorough
class TestA2C(AgentConformance):
    config = a2c.Config()
    only = PARTS
    test_host_and_device_agree = None  # tests/agents_zoo/test_a2c.py


@pytest.mark.thorough
class TestIMPALA(AgentConformance):
    config = impala.Config()
    only = PARTS
    test_host_and_device_agree = None  # tests/agents_zoo/test_impala.py


@pytest.mark.slow
class TestDQN(AgentConformance):
    config = dqn.Config(prioritised=True, n_step=3, duelling=True)
    seeds = 3
    test_host_and_device_agree = None  # tests/agents_zoo/test_dqn.py


@pytest.mark.thorough
class TestSAC(AgentConformance):
    config = sac.Config()
    seeds = 3


@pytest.mark.thorough
class TestTD3(AgentConformance):
    config = td3.Config()
    only = PARTS


@pytest.mark.thorough
class TestDDPG(AgentConformance):
    config = ddpg.Config()
    only = PARTS
    test_host_and_device_agree = None  # it is TD3, with other settings


@pytest.mark.parametrize("only", [["P99"], ["P1", "nothing"], ["Adder"]])
def test_what_names_no_check_is_an_error(only):
    with pytest.raises(SettingError, match="only: check: unknown value"):
        diagnose(dqn.Config(), only=only)
