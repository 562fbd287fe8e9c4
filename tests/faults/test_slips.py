"""Slips that people make in environments, agents and settings of their own, and what is said."""

import dataclasses
import json
import os
import pathlib
import random

import dm_env
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces
from plain import IN_BLOCKS, Config, Summing

import rlws
from agents_zoo import reinforce
from rlws.__main__ import main
from rlws.actor import Actor
from rlws.adders import Unrolls
from rlws.environments.checks import EnvironmentFault
from rlws.environments.gymnasium_spaces import to_spec
from rlws.environments.repeats import aside
from rlws.networks import GRU, LSTM, MLP, compose, policy
from rlws.numerics import answers, checkpoint, trees
from rlws.runs import launch
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Checkpoints, Evaluation, Experiment
from rlws.runs.health import NonFiniteError
from rlws.settings import SettingError, describe
from rlws.terms.term import Term
from rlws.tracking import read_metrics
from rlws.trainers import DeviceTrainer, HostTrainer, initial
from tests.diagnose.right_agents import variant


class Ten(gymnasium.Env):
    """Episodes of ten steps."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, high=1.0):
        self.action_space = spaces.Box(-high, high, (2,))

    def reset(self, seed=None, options=None):
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.count == 10, False, {"odd": self.odd()}

    def odd(self):
        return 1.0


class Dm(dm_env.Environment):
    """The same, of dm_env."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def reset(self):
        self.count = 0
        return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
        self.count += 1
        end = dm_env.termination if self.count == 10 else dm_env.transition
        return end(1.0, np.zeros(2, np.float32))

    def observation_spec(self):
        return specs.Array((2,), np.float32)

    def action_spec(self):
        return specs.BoundedArray((2,), np.float32, -1.0, 1.0)


class Counted(Dm):
    episode = property(lambda self: 3)


def run(tmp_path, environment, **changes):
    made = Experiment(
        name="slips",
        agent=IN_BLOCKS,
        environment=environment,
        steps=60,
        evaluation=Evaluation(episodes=2),
        directory=str(tmp_path / "run"),
        quiet=True,
    )
    return launch.run(dataclasses.replace(made, **changes))


@pytest.mark.parametrize("changes", [{"trainer": HostTrainer(num_envs=2)}, {}])
def test_a_function_must_not_return_the_same_environment_again(changes, tmp_path):
    shared = Ten()
    with pytest.raises(SettingError, match="must be a new one at each call, got the same Ten"):
        run(tmp_path, lambda seed, index: shared, **changes)
    assert not any((tmp_path / "run").iterdir())  # so the mended command may have it


def test_nor_one_within_those_stepped_together(tmp_path):
    shared = Ten()

    def make(seed, num_envs):
        return gymnasium.vector.SyncVectorEnv([lambda: shared] * num_envs)

    trainer = HostTrainer(num_envs=2, vectorization="sync")
    with pytest.raises(SettingError, match="must be a new one at each call, got the same Ten"):
        list(trainer.train(IN_BLOCKS, make, steps=10))


def test_environments_side_by_side_take_the_same_actions(tmp_path):
    make = lambda seed, index: Ten(high=1.0 / (1 + index))
    with pytest.raises(EnvironmentFault, match="environment 1: its actions must be those of"):
        run(tmp_path, make, trainer=HostTrainer(num_envs=2))


def test_an_environment_that_runs_out_of_data_is_named(tmp_path):
    class Data(Ten):
        def odd(self):
            return next(self.rest)

        rest = iter([1.0] * 30)

    with pytest.raises(EnvironmentFault, match=r"environment 0, .* must end its episode instead"):
        run(tmp_path, lambda seed, index: Data())


@pytest.mark.parametrize(
    "make",
    [lambda s, i: Dm(episode=np.int64(0)), lambda s, i: Dm(episode=[]), lambda s, i: Counted()],
)
@pytest.mark.slow
def test_an_environment_may_have_an_episode_of_its_own(make, tmp_path):
    assert run(tmp_path, make)["steps"] == 60
    assert run(tmp_path, make, steps=90, resume=True)["steps"] == 90


@pytest.mark.parametrize("limit", [0, -1, 10.0, lambda: 10])
def test_time_limits_are_whole_numbers(limit, tmp_path):
    with pytest.raises(SettingError, match="max_episode_steps must be a whole number above 0 or"):
        run(tmp_path, lambda seed, index: Dm(max_episode_steps=limit))


def test_a_time_limit_that_is_too_short_is_named(tmp_path):
    found = run(tmp_path, lambda seed, index: Dm(max_episode_steps=5))
    assert any("after 5 steps and have no return; the environment" in x for x in found["warnings"])


def test_texts_and_counts_beyond_an_int32_are_no_observations(tmp_path):
    class Words(Dm):
        def observation_spec(self):
            return specs.StringArray(())

    with pytest.raises(SettingError, match="observations and actions must be numbers, got Str"):
        run(tmp_path, lambda seed, index: Words())
    with pytest.raises(SettingError, match="action space must be of at most 2,147,483,647 values"):
        to_spec(spaces.Discrete(2**40), "action")


def test_an_environment_may_change_the_folder_it_is_in(tmp_path, monkeypatch):
    class Elsewhere(Ten):
        def reset(self, seed=None, options=None):
            os.chdir(tmp_path / "other")
            return super().reset()

    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    run(tmp_path, lambda seed, index: Elsewhere(), directory="here")
    assert json.loads((tmp_path / "here" / "summary.json").read_text())["steps"] == 60


def test_what_is_looked_at_draws_nothing_of_what_training_draws():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    draws = lambda: (random.random(), np.random.rand())  # noqa: NPY002
    expected = [draws(), draws()]
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    first = draws()
    with aside():
        draws()
    assert [first, draws()] == expected


class Drawing(Ten):
    def reset(self, seed=None, options=None):
        np.random.seed(seed)  # noqa: NPY002
        return super().reset()

    def odd(self):
        return float(np.random.rand())  # noqa: NPY002


def test_evaluation_changes_no_training_where_environments_draw_from_numpy(tmp_path):
    found = []
    for i, evaluation in enumerate((Evaluation(episodes=0), Evaluation(episodes=2, period=15))):
        folder = tmp_path / str(i)
        run(folder, lambda s, i: Drawing(), evaluation=evaluation, info=("odd=sum",))
        found.append(read_metrics(folder / "run" / "metrics.csv")["episode_odd"])
    np.testing.assert_array_equal(*found)


NUMBERS = np.int64(48), np.float32(0.5), jnp.float32(0.5), np.int32(3)


@pytest.mark.slow
def test_numbers_of_numpy_are_those_of_python(tmp_path):
    agent = reinforce.Config(backbone=MLP((np.int64(8),)), discount=NUMBERS[1])
    traced = dataclasses.replace(agent, discount=NUMBERS[2])
    assert describe(agent) == describe(traced) == json.loads(json.dumps(describe(agent)))
    assert describe(agent)["discount"] == 0.5
    numbers = dict(seed=NUMBERS[3], steps=NUMBERS[0], trainer=HostTrainer(num_envs=np.int64(2)))
    run(tmp_path, "jax:Catch", agent=agent, evaluation=Evaluation(episodes=0), **numbers)
    assert rlws.load(tmp_path / "run").experiment.steps == 48


@pytest.mark.slow
def test_a_step_to_load_is_a_whole_number(tmp_path):
    run(tmp_path, "jax:Catch", checkpoint=Checkpoints(period=20, keep=9))
    at = lambda at: rlws.load(tmp_path / "run", at).checkpoint.path.name
    assert at(np.int64(25)) == at("25") == at(25) == "000000000020"
    for wrong in (1.5, "soon", float("nan")):
        with pytest.raises(SettingError, match="at must be a step, such as 50k, or best, got"):
            at(wrong)


def refused(config, message):
    """Has an agent traced, as before a run, and says why it is none."""
    spec = rlws.environments.Catch().spec()
    with pytest.raises(SettingError, match=message):
        jax.eval_shape(lambda: initial.init(config.make(spec), spec, 0, 1))


def _learner(answer):
    """Returns an agent whose loss, or whose update, makes `answer` of what it was."""

    class Learner(reinforce.Reinforce):
        def loss(self, *args):
            return answer("loss", *super().loss(*args))

        def update(self, *args):
            return answer("update", *super().update(*args))

    return Learner


def _agent(answer):
    return variant(reinforce, _learner(answer))(backbone=MLP((4,)), episodes_per_update=1)


def metric(value, name="mine"):
    return lambda where, x, m: (x, {**m, name: value} if where == "loss" else m)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda where, x, m: x if where == "loss" else (x, m), "loss must return what to minimise"),
        (lambda where, x, m: (x, m, 0), "loss must return what to minimise and metrics, got 3 of"),
        (
            lambda where, x, m: (x._replace(extra=(1,)), m) if where == "update" else (x, m),
            r"update: the state\.extra must stay what it was, float32\[\], got none",
        ),
        (
            lambda where, x, m: (x._replace(params=[]), m) if where == "update" else (x, m),
            r"update: the state\.params\[.* must stay what it was, float32",
        ),
        (metric([1.0]), r"metrics\['mine'\] must be a real number, got list"),
        (metric(None), r"metrics\['mine'\] must be a real number, got NoneType"),
        (metric("x"), r"metrics\['mine'\] must be a real number, got str"),
        (metric(jnp.complex64(1)), r"metrics\['mine'\] must be a real number, got complex64"),
        (metric(1.0, "a\u2028b"), "metrics must have names of one line, got 'a"),
        (metric(1.0, 3), "metrics must have names of one line, got 3"),
        (metric(1.0, "steps"), "a metric must not be called 'steps': every run logs that"),
        (metric(1.0, "episode_x"), "a metric must not be called 'episode_x'"),
    ],
)
def test_slips_of_a_learner_are_named(answer, message):
    refused(_agent(answer), f"Learner.*{message}")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ((0, ()), "select_action must return action, state and extras, got 2 of them"),
        ((0, (jnp.ones(1),), {}), r"select_action: the state\[0\] must stay what it was, none"),
    ],
)
def test_slips_of_an_actor_are_named(found, message):
    class Slipping(Actor):
        def select_action(self, params, timestep, state, key):
            return found

    class Changed(reinforce.Config):
        def make(self, spec):
            return dataclasses.replace(super().make(spec), actor=Slipping())

    refused(Changed(backbone=MLP((4,))), message)


@pytest.mark.parametrize(
    ("part", "value"), [("adder", 3), ("learner", Summing), ("actor", None), ("evaluator", "x")]
)
def test_parts_of_an_agent_are_of_their_classes(part, value):
    agent = IN_BLOCKS.make(rlws.environments.Catch().spec())
    kind = {"adder": "Adder", "learner": "Learner"}.get(part, "Actor")
    with pytest.raises(SettingError, match=f"the agent's {part} must be of class {kind}, got"):
        HostTrainer().check_agent(dataclasses.replace(agent, **{part: value}))


class ForgetsToReturn(Unrolls):
    which: str

    def add(self, *args):
        return None if self.which == "add" else super().add(*args)

    def sample(self, *args):
        found = super().sample(*args)
        return {"sample": None, "batch": (found[0], None)}.get(self.which, found)


@pytest.mark.parametrize("trainer", [HostTrainer(), DeviceTrainer()], ids=["host", "device"])
@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("add", r"ForgetsToReturn.add: the state.* must stay what it was, .* got none"),
        ("sample", "ForgetsToReturn.sample must return the state and a Trajectory, got NoneType"),
        ("batch", "ForgetsToReturn.sample must return the state and a Trajectory, got None"),
    ],
)
def test_slips_of_an_adder_are_named(trainer, which, message):
    with pytest.raises(SettingError, match=message):
        list(trainer.train(Config(ForgetsToReturn(8, which=which)), "jax:Catch", steps=20))


def test_states_that_differ_in_nothing_but_their_structure_are_told():
    with pytest.raises(SettingError, match="state must keep its structure"):
        answers.same("the state", {"x": ()}, {"y": ()})
    answers.same("the state", {"x": 0}, {"x": jnp.int32(1)})


@pytest.mark.parametrize(
    ("features", "got"),
    [(None, "NoneType"), (jnp.int32([1]), "int32"), (jnp.float32(1), "float32")],
)
def test_what_a_backbone_returns_is_looked_at(features, got):
    spec = rlws.environments.spec(Dm())
    with pytest.raises(SettingError, match=f"a backbone must return features.*got {got}"):
        compose(spec, lambda observation: features, policy=policy(spec))


class Rooted(Summing):
    """Comes to NaN where its gain is below 0."""

    gain: float = 1.0

    def update(self, state, batch, key):
        state, metrics = super().update(state, batch, key)
        return state, {"loss": metrics["loss"] * jnp.sqrt(self.gain)}


class Gained(Config):
    gain: float = 1.0

    def make(self, spec):
        agent = super().make(spec)
        own = agent.learner
        return dataclasses.replace(agent, learner=Rooted(own.network, own.optimizer, self.gain))


GAINED = Gained(IN_BLOCKS.adder)


@pytest.mark.slow
def test_nan_is_told_where_nobody_else_can_find_the_agent(tmp_path):
    agent = dataclasses.replace(GAINED, gain=-1.0)
    with pytest.raises(NonFiniteError, match="came to NaN or infinity"):
        run(tmp_path, lambda seed, index: rlws.environments.Catch(), agent=agent)


@pytest.mark.parametrize("damage", [b"\n", b"garbage,1\n", b"\xff\xfe\n"])
def test_lines_that_are_none_do_not_keep_a_run_from_going_on(damage, tmp_path, capsys):
    run(tmp_path, "jax:Catch", track=("jsonl",))
    tables = [tmp_path / "run" / name for name in ("metrics.csv", "metrics.jsonl")]
    for path in tables:
        with path.open("ab") as file:
            file.write(damage)
    run(tmp_path, "jax:Catch", track=("jsonl",), steps=90, resume=True)
    assert capsys.readouterr().err.count("has 1 damaged line, left out") == 2
    steps = read_metrics(tables[0])["steps"]
    assert steps == sorted(steps)
    assert [json.loads(line)["steps"] for line in tables[1].read_text().splitlines()] == steps


def test_arrays_that_would_have_one_name_are_told():
    with pytest.raises(SettingError, match="arrays must differ in their paths, got 'a/b' twice"):
        trees.flatten({"a/b": np.ones(2), "a": {"b": np.ones(2)}})


def test_a_reader_lists_again_what_was_taken_away_meanwhile(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, "000000000001", {"x": np.ones(1)}, {}, keep=1)
    read = checkpoint.read

    def late(path):
        if path.name == "000000000001":
            checkpoint.save(tmp_path, "000000000002", {"x": np.ones(1)}, {}, keep=1)
        return read(path)

    monkeypatch.setattr(checkpoint, "read", late)
    assert checkpoint.newest(tmp_path, lambda text: None).path.name == "000000000002"


@pytest.mark.parametrize("name", ["", "../x", "/x", "a/../../x"])
def test_names_are_of_folders_in_results(name, tmp_path):
    with pytest.raises(SettingError, match="name must be that of a folder in results/"):
        run(tmp_path, "jax:Catch", name=name)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SettingError, match=r"directory must be a folder, got .* which is none"):
        run(tmp_path, "jax:Catch")
    assert (tmp_path / "run").read_text() == "mine"


def test_pictures_are_looked_at_before_a_run(tmp_path):
    class Grey(Ten):
        render_mode = "rgb_array"

        def render(self):
            return np.zeros((4, 4), np.uint8)

    make = lambda seed, index: Grey()
    with pytest.raises(
        SettingError, match=r"a frame must be uint8 \[H, W, 3\], got uint8 \[4, 4\]"
    ):
        run(tmp_path, make, video=True)


@pytest.mark.slow
def test_what_a_folder_holds_is_only_removed_where_the_run_is_new(tmp_path):
    run(tmp_path, "jax:Catch")
    before = sorted(path.name for path in pathlib.Path(tmp_path / "run").iterdir())
    with pytest.raises(SettingError):
        run(tmp_path, "jax:Catch")
    with pytest.raises(SettingError):
        run(tmp_path, "jax:Catch", seed=1, resume=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    Checkpointer(tmp_path / "run", Checkpoints(), {}).close()


@pytest.mark.slow
def test_a_member_that_comes_to_nan_is_told_and_counted(tmp_path, capsys):
    sweep = ("agent.gain=1.0,-1.0",)
    found = run(
        tmp_path, "jax:Catch", agent=GAINED, trainer=DeviceTrainer(), sweep=sweep, quiet=False
    )
    assert "1 of 1 did not finish: update 1, at" in found["gain=-1.0"]
    assert "did not" not in found["gain=1.0"]
    assert "1_gain=-1.0_seed0: update 1, at" in capsys.readouterr().out


def test_files_that_exit_are_no_healthy_agents(tmp_path, capsys):
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    assert main(["diagnose", str(tmp_path / "leaves.py")]) == 2
    assert "exits when imported" in capsys.readouterr().err


@pytest.mark.parametrize("check", ["P99", ""])
def test_unknown_checks_are_named_before_anything_is_compiled(check, capsys):
    assert main(["diagnose", "agents_zoo.ppo", "--only", check]) == 2
    assert "only: check: unknown value" in capsys.readouterr().err


@pytest.mark.slow
def test_sweeps_have_an_end(tmp_path):
    with pytest.raises(SettingError, match="a sweep must be of 10,000 runs at most, got 99,990,0"):
        run(tmp_path, "jax:Catch", sweep=("seed=0..9999", "trainer.num_envs=1..9999"))


def test_the_device_says_that_it_is_of_32_bits(tmp_path):
    with jax.enable_x64(True), pytest.raises(SettingError, match="JAX_ENABLE_X64 must be off"):
        run(tmp_path, "jax:Catch", trainer=DeviceTrainer())


class Around(Dm):
    """A wrapper, as dm_env's are written."""

    def __init__(self, inner):
        self._environment = inner

    def reset(self):
        return self._environment.reset()

    def step(self, action):
        return self._environment.step(action)


def test_nor_the_same_one_in_another_wrapper(tmp_path):
    shared = Dm()
    with pytest.raises(SettingError, match="must be a new one at each call, got the same Dm again"):
        run(tmp_path, lambda seed, index: Around(shared), trainer=HostTrainer(num_envs=2))


@pytest.mark.parametrize("outer", [GRU, LSTM])
def test_a_memory_within_a_memory_is_not_lost_without_a_word(outer):
    with pytest.raises(SettingError, match=r"encoder must have no memory of its own, got GRU"):
        outer(GRU(MLP((4,)), 3), 5)


class Drifting(Term):
    name = "drifting"

    def init(self, key, params):
        return {}, jnp.int32(0)

    def prepare(self, params, state, batch):
        return batch, {}, state + 1.0


def test_what_a_term_keeps_stays_what_it_was():
    class Changed(reinforce.Config):
        def make(self, spec):
            agent = super().make(spec)
            return dataclasses.replace(agent, learner=agent.learner.with_terms(Drifting()))

    made = Changed(backbone=MLP((4,)), episodes_per_update=1)
    refused(made, r"what terms keep\[.*must stay what it was, int32")


@pytest.mark.slow
def test_of_runs_by_themselves_others_go_on_where_one_comes_to_nan(tmp_path):
    with pytest.raises(NonFiniteError, match=r"1 of 2 runs: gain=-1.0_seed=0: update 1, at"):
        run(tmp_path, "jax:Catch", agent=GAINED, sweep=("agent.gain=-1.0,1.0", "seed=0"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "1 of 1 did not finish: " in summary["gain=-1.0"]
    assert "n 1" in summary["gain=1.0"]
    assert "did not" not in summary["gain=1.0"]


@pytest.mark.slow
def test_one_of_jax_may_be_shared(tmp_path):
    shared = rlws.environments.Catch()
    make = lambda seed, index: rlws.environments.to_dm_env(shared, seed, index)
    assert run(tmp_path, make, trainer=HostTrainer(num_envs=2))["steps"] == 60


def test_what_is_around_a_new_one_of_another_function_is_new(tmp_path):
    inner = lambda seed, index: Dm()
    make = lambda seed, index: Around(rlws.environments.resolve.host(inner, seed, index))
    assert run(tmp_path, make, trainer=HostTrainer(num_envs=2))["steps"] == 60
