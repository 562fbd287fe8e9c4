"""`rlws.load`: the policy of a run acts as its evaluation does."""

import dataclasses
import itertools
import json
import pickle
import shutil

import jax
import numpy as np
import pytest

import rlws
from agents_zoo import a2c, reinforce
from rlws import environments
from rlws.actor import PolicyActor
from rlws.environments import resolve
from rlws.networks import GRU, MLP
from rlws.numerics import checkpoint, streams, trees
from rlws.numerics.checkpoint import CheckpointError
from rlws.numerics.streams import Stream
from rlws.runs.experiment import Evaluation
from rlws.settings import SettingError
from rlws.trainers import HostTrainer, evaluation
from tests.commands.toys import TOY, run_toy


class Sampling(reinforce.Config):
    """REINFORCE that is evaluated as it learns: by chance."""

    def make(self, spec):
        agent = super().make(spec)
        return dataclasses.replace(agent, evaluator=PolicyActor(agent.actor.network))


MEMORY = dict(
    environment="jax:Memory",
    agent=dataclasses.replace(TOY.agent, backbone=GRU(size=4), sequence_length=5),
    steps=80,
)
RUNS = {
    "ppo": {},
    "recurrent": MEMORY,
    "sampling": dict(
        agent=Sampling(MLP((4,)), episodes_per_update=2),
        trainer=HostTrainer(),
        steps=60,
        evaluation=Evaluation(episodes=40),
    ),
    "continuous": dict(environment="gym:Pendulum-v1", trainer=HostTrainer(num_envs=2), steps=60),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns the folder of a run by name, made once."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = run_toy(tmp_path_factory.mktemp(name) / "run", **RUNS[name])
        return made[name]

    return folder


def episodes(policy, count):
    """Yields, for each of the evaluation's episodes on the device, function and first state."""
    environment = resolve.device(policy.experiment.environment)
    own = streams.host_seed(policy.experiment.seed, Stream.EVALUATION)
    key = streams.key(own, Stream.ENVIRONMENT)
    for i in range(count):
        yield jax.jit(environment.step), environment.reset(environments.episode_key(key, i, 0))


def play(policy, step, state, timestep):
    """Returns the return of an episode."""
    total, state = 0.0, (state, timestep)
    policy.reset()
    while not state[1].last():
        state = step(state[0], policy(np.asarray(state[1].observation)))
        total += float(state[1].reward)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ppo", "recurrent", pytest.param("sampling", marks=pytest.mark.thorough)]
)
def test_episodes_of_a_loaded_policy_are_those_of_the_evaluation(name, folders):
    policy = rlws.load(folders(name))
    count = policy.experiment.evaluation.episodes
    evaluate = evaluation.evaluator(policy.agent, policy.experiment.environment, count)
    returns, _ = evaluate(policy.params, policy.experiment.seed)
    found = [play(policy, step, *first) for step, first in episodes(policy, count)]
    np.testing.assert_allclose(found, returns)
    assert len(set(found)) > 1  # else any policy would do
    summary = json.loads((folders(name) / "summary.json").read_text())
    assert np.mean(found) == pytest.approx(summary["evaluation_return_mean"])


@pytest.mark.slow
def test_load_finds_what_was_trained(folders):
    policy = rlws.load(str(folders("ppo")))
    assert policy.experiment == dataclasses.replace(TOY, directory=str(folders("ppo")))
    newest = checkpoint.read(folders("ppo") / "checkpoints" / f"{400:012d}").arrays
    for path, x in trees.flatten(policy.params).items():
        np.testing.assert_array_equal(x, newest[f"run/state/learner/params/{path}"])


@pytest.mark.slow
def test_load_at_a_step_takes_the_newest_until_then(folders):
    steps = [int(name) for name in checkpoint.names(folders("ppo") / "checkpoints")]
    assert steps[0] == 0
    assert steps[-1] == 400
    newest = jax.tree.leaves(rlws.load(folders("ppo")).params)
    for step, following in zip(steps, [*steps[1:], 10**9], strict=True):
        for at in (step, following - 1):
            policy = rlws.load(folders("ppo"), at)
            assert policy.checkpoint.facts["step"] == step
        same = map(np.array_equal, jax.tree.leaves(policy.params), newest)
        assert all(same) == (step == 400)


@pytest.mark.slow
def test_recurrent_policy_remembers_until_it_is_reset(folders):
    policy = rlws.load(folders("recurrent"))
    seen = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    state = lambda: np.asarray(jax.tree.leaves(policy._state)[0]).copy()
    states = [state()]
    for observation in seen:
        policy(observation)
        states.append(state())
    assert all(np.abs(a - b).max() > 1e-6 for a, b in itertools.pairwise(states))
    policy.reset()
    np.testing.assert_array_equal(state(), states[0])
    for observation, after in zip(seen, states[1:], strict=True):
        policy(observation)
        np.testing.assert_array_equal(state(), after)


@pytest.mark.slow
def test_a_policy_travels_with_what_it_remembers(folders):
    policy = rlws.load(folders("recurrent"))
    shape = policy.spec.observations.shape
    seen = np.random.default_rng(0).uniform(0, 1, (6, *shape)).astype(np.float32)
    first = [policy(x) for x in seen[:3]]
    other = pickle.loads(pickle.dumps(policy))
    states = [jax.tree.leaves(jax.device_get(x._state)) for x in (policy, other)]
    np.testing.assert_array_equal(*(np.concatenate([np.ravel(y) for y in x]) for x in states))
    assert [policy(x) for x in seen[3:]] == [other(x) for x in seen[3:]]
    other.reset()
    assert [other(x) for x in seen[:3]] == first


@pytest.mark.slow
def test_actions_are_those_of_the_spec(folders):
    policy = rlws.load(folders("continuous"))
    for observation in np.random.default_rng(0).normal(size=(5, 3)):  # float64 is taken, too
        action = policy(observation)
        policy.spec.actions.validate(action)
        assert (action.shape, action.dtype) == ((1,), np.float32)
    discrete = rlws.load(folders("ppo"))
    action = discrete(np.asarray(discrete.spec.zero_observation()))
    assert (action.shape, action.dtype) == ((), np.int32)


@pytest.mark.slow
def test_wrong_observations_are_refused_with_what_is_expected(folders):
    policy = rlws.load(folders("ppo"))
    zero = np.asarray(policy.spec.zero_observation())
    for wrong in (zero[None], np.stack([zero] * 3), zero.ravel()[:-1], 1.0):
        found, shape = np.asarray(wrong), [*np.shape(wrong)]
        with pytest.raises(SettingError) as error:
            policy(wrong)
        must = f"must be {zero.dtype}{[*zero.shape]}, as the spec says, got {found.dtype}{shape}"
        assert f"an observation {must}; one environment's, without a batch axis" in str(error.value)
    for wrong, says in ((np.nan, "must be finite"), (1e300, "must fit into float32, got 1e.300")):
        with pytest.raises(SettingError, match=says):
            policy(np.full(zero.shape, wrong))
    assert policy(zero.tolist()) == policy(zero)
    for wrong in ({"board": zero}, (zero,), None):
        with pytest.raises(SettingError, match=r"an observation must be \.\.\., as the spec says"):
            policy(wrong)


def test_load_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(SettingError, match="must be the folder of a run"):
        rlws.load(tmp_path)
    with pytest.raises(SettingError, match="must be the folder of a run"):
        rlws.load(tmp_path / "none")


@pytest.mark.slow
def test_load_refuses_a_run_without_checkpoints_or_with_damaged_ones(folders, tmp_path):
    run = shutil.copytree(folders("ppo"), tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(SettingError, match="must hold a checkpoint, got none"):
        rlws.load(run)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint at or before step 5 in .*; have none"
    ):
        rlws.load(run, at=5)
    shutil.copytree(folders("ppo") / "checkpoints", run / "checkpoints")
    for path in (run / "checkpoints").iterdir():
        (path / "arrays.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole"):
        rlws.load(run)


@pytest.mark.slow
def test_load_passes_over_a_damaged_checkpoint_aloud(folders, tmp_path, capsys):
    run = shutil.copytree(folders("ppo"), tmp_path / "run")
    *_, before, last = checkpoint.names(run / "checkpoints")
    (run / "checkpoints" / last / "manifest.json").unlink()
    assert rlws.load(run).checkpoint.path.name == before
    assert "warning: checkpoint passed over" in capsys.readouterr().err


@pytest.mark.slow
def test_load_refuses_the_checkpoint_of_another_agent(folders, tmp_path):
    run = shutil.copytree(folders("ppo"), tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["agent"]["backbone"]["hidden_sizes"] = [9]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        SettingError, match=r"\(saved, now\): agent.backbone.hidden_sizes: \[8\], \[9\]"
    ):
        rlws.load(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [TOY.trainer, pytest.param(HostTrainer(num_envs=2), marks=pytest.mark.thorough)],
    ids=["device", "host"],
)
def test_load_of_a_sweep_wants_one_of_its_runs(trainer, tmp_path):
    agent = a2c.Config(MLP((8,)), unroll_length=10)  # compiled sooner than PPO
    sweep = dict(agent=agent, trainer=trainer, sweep=("agent.discount=0.5,0.9",))
    run = run_toy(tmp_path / "sweep", **sweep)
    with pytest.raises(SettingError, match=r"holds 2 runs; name one of the folders in it"):
        rlws.load(run)
    for member in sorted(run.glob("*seed0")):
        policy = rlws.load(member)
        assert f"discount={policy.experiment.agent.discount}" in member.name
        policy(np.asarray(policy.spec.zero_observation()))
