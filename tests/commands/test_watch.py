"""`rlws watch`: a film of the policy of a run."""

import dataclasses

import dm_env
import imageio_ffmpeg
import jax
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import dqn, sac
from rlws.commands import watch
from rlws.environments import Catch, to_dm_env
from rlws.networks import MLP
from rlws.runs import film
from rlws.runs.policy import load
from rlws.tracking.numbers import LEAST, WIDTH
from rlws.trainers.initial import initial_actor_state
from rlws.types import EnvironmentSpec
from tests.commands.toys import TOY, run_toy, steps, tree

CONTINUOUS = EnvironmentSpec(
    specs.Array((3,), np.float32), specs.BoundedArray((2,), np.float32, -1.0, 1.0)
)

# imageio_ffmpeg.read_frames, used here only to look, leaves its pipes to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def frames(path):
    """Returns the size and the frames of a film, each decoded."""
    reader = imageio_ffmpeg.read_frames(path)
    size = next(reader)["size"]
    return size, [bytes(frame) for frame in reader]


def test_watch_films_an_episode(copy, rlws):
    found = rlws("watch", copy)
    assert found.status == 0
    path = copy / "videos" / "watch.mp4"
    assert found.out == f"{path}\n"
    (width, height), shown = frames(path)
    assert min(width, height) > 30
    assert len(shown) == 10  # nine steps, and what was there before
    assert len(set(shown)) > 5  # something moves


def test_watch_films_one_episode_after_the_other(copy, rlws, tmp_path):
    output = tmp_path / "films" / "two.mp4"
    assert rlws("watch", copy, "--episodes", "2", "--output", output).status == 0
    _, one = frames(output)
    assert len(one) == 20
    assert one[:10] != one[10:]  # of its own
    assert not (copy / "videos").exists()


def test_watch_plays_the_checkpoint_that_is_asked_for(copy, rlws, monkeypatch):
    loaded = []
    load = watch.policy_of
    monkeypatch.setattr(watch, "policy_of", lambda args: loaded.append(load(args)) or loaded[-1])
    assert rlws("watch", copy, "--at", steps(copy)[1]).status == 0
    assert loaded[0].checkpoint.facts["step"] == steps(copy)[1]


@pytest.mark.parametrize(
    ("flags", "message", "status"),
    [
        (["--episodes", "0"], "--episodes must be at least 1 and at most 1000000, got 0", 2),
        (["--output", "film"], "--output must end in .mp4, got 'film'", 2),
        (["--output", "config.json/film.mp4"], "--output must be writable, got 'config.json/fi", 2),
        (["--at", "-1"], "no checkpoint at or before step -1 in", 3),
    ],
)
def test_watch_explains_wrong_input_in_one_line(flags, message, status, copy, refused, monkeypatch):
    monkeypatch.chdir(copy)
    before = tree(copy)
    assert message in refused("watch", copy, *flags, status=status)
    assert tree(copy) == before


@pytest.mark.slow
def test_watch_says_that_there_are_no_pictures(tmp_path, refused):
    run = run_toy(tmp_path / "run", environment="jax:Memory", steps=0)
    before = tree(run)
    error = refused("watch", run)
    assert error.startswith("jax:Memory gives no pictures: Memory has no renderer; `rlws evaluate`")
    assert tree(run) == before


@pytest.mark.slow
def test_watch_with_numbers_has_a_panel_with_the_film(copy, rlws, tmp_path):
    paths = tmp_path / "plain.mp4", tmp_path / "numbers.mp4"
    assert rlws("watch", copy, "--output", paths[0]).status == 0
    assert rlws("watch", copy, "--output", paths[1], "--numbers").status == 0
    (_, plain), ((width, height), shown) = (frames(path) for path in paths)
    assert len(shown) == len(plain)
    assert height >= LEAST
    assert width > WIDTH
    again = load(copy).film(tmp_path / "again.mp4", numbers=True)
    assert again._repr_html_().startswith("<video controls")


@pytest.mark.parametrize("normalised", [False, True])
def test_numbers_are_what_the_network_says(normalised, monkeypatch):
    found = []
    monkeypatch.setattr(film, "beside", lambda *args: found.append(args[1:]))
    agent = dataclasses.replace(TOY.agent, normalise_observations=normalised).make(Catch().spec())
    params = jax.jit(agent.learner.init)(jax.random.PRNGKey(0)).params
    timestep = to_dm_env(Catch()).reset()
    film.numbers_of(agent, params)(None, 3, 1.5, timestep, ())
    [(numbers, bars)] = found
    assert (numbers["step"], numbers["return"]) == (3.0, 1.5)
    assert sum(bars["probability"]) == pytest.approx(1.0)
    if not normalised:
        outputs = jax.jit(agent.evaluator.network.apply)(params, timestep.observation)
        assert numbers["value"] == pytest.approx(float(outputs.value), abs=1e-6)
        expected = jax.nn.softmax(outputs.policy.logits)
        np.testing.assert_allclose(bars["probability"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "spec", "bar", "size"),
    [(dqn.Config(), Catch().spec(), "q", 3), (sac.Config(), CONTINUOUS, "action", 2)],
)
@pytest.mark.slow
def test_numbers_of_actors_that_count_steps_or_ask_a_network_otherwise(
    config, spec, bar, size, monkeypatch
):
    found = []
    monkeypatch.setattr(film, "beside", lambda *args: found.append(args[1:]))
    agent = dataclasses.replace(config, backbone=MLP((4,))).make(spec)
    params = jax.jit(agent.learner.init)(jax.random.PRNGKey(0)).params
    zeros = jax.tree.map(np.asarray, spec.zero_observation())
    state = initial_actor_state(agent.evaluator, 1)
    film.numbers_of(agent, params)(None, 0, 0.0, dm_env.restart(zeros), state)
    [(_, bars)] = found
    assert len(bars[bar]) == size
