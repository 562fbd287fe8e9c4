"""ALE's games as ours, against ALE played by hand."""

import sys

import jax
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, test_utils

from rlws import environments
from rlws.environments.vector import make_vector
from rlws.settings import SettingError

ale_py = pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")
from rlws.environments.atari_adapter import AtariEnvironment  # noqa: E402

NOOP, FIRE = np.int32(0), np.int32(1)


class AtariTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return AtariEnvironment("Pong", max_episode_steps=15)

    def make_action_sequence(self):
        return (self.make_action() for _ in range(40))  # to the end of an episode and past it


def choose(steps, seed=0):
    return np.random.default_rng(seed).integers(18, size=steps).astype(np.int32)


def play(env, actions):
    """Returns all that an episode says, as bytes."""
    timesteps = [env.reset(), *map(env.step, actions)]
    return b"".join(np.asarray(x).tobytes() for t in timesteps for x in jax.tree.leaves(t))


def by_hand(game, actions):
    """Yields ALE's points, whether the game is over, and the picture, of every 4 frames."""
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(ale_py.roms.get_rom_path(game))
    ale.reset_game()
    legal, frames = ale.getLegalActionSet(), [ale.getScreenGrayscale()] * 2
    for action in actions:
        points = 0
        for _ in range(4):
            points += ale.act(legal[action])
            frames = [frames[1], ale.getScreenGrayscale()]
            if ale.game_over(with_truncation=False):
                break
        small = cv2.resize(np.maximum(*frames), (84, 84), interpolation=cv2.INTER_AREA)
        yield points, ale.game_over(with_truncation=False), small[..., None]


def test_game_is_ales_to_its_end():
    env, actions = AtariEnvironment("MsPacman", sticky=0.0), choose(3000)
    env.reset()
    scores = set()
    for action, (points, over, picture) in zip(actions, by_hand("ms_pacman", actions), strict=True):
        timestep = env.step(action)
        scores.add(timestep.reward)
        expected = (StepType.LAST, points, 0.0) if over else (StepType.MID, points, 1.0)
        assert timestep[:3] == expected
        if over:
            break
        np.testing.assert_array_equal(timestep.observation, picture)
    assert over
    assert max(scores) >= 10  # not clipped
    assert env.step(actions[0]).first()


def test_later_episodes_begin_as_the_first_after_loading():
    # In Assault, what the console draws when it is switched on stays in its memory.
    env = AtariEnvironment("Assault")
    for _ in range(3):
        play(env, choose(5))
    env.reset()
    ale = ale_py.ALEInterface()
    ale.loadROM(ale_py.roms.get_rom_path("assault"))
    ale.reset_game()
    np.testing.assert_array_equal(env._ale.getRAM(), ale.getRAM())


def test_limit_truncates():
    env = AtariEnvironment("Breakout", max_episode_steps=7)
    assert environments.spec(env).max_episode_steps == 7
    env.reset()
    ends = [env.step(NOOP) for _ in range(7)]
    assert [t.step_type for t in ends] == [StepType.MID] * 6 + [StepType.LAST]
    assert ends[-1].discount == 1.0
    # What is learnt from is the last picture, and not the one before.
    assert env._ale.getEpisodeFrameNumber() == 28


def test_limit_is_of_frames():
    assert AtariEnvironment("Pong").max_episode_steps == 27_000
    assert AtariEnvironment("Pong", frame_skip=2).max_episode_steps == 54_000
    with pytest.raises(SettingError, match="max_episode_steps must be at least 1, got 0"):
        AtariEnvironment("Pong", max_episode_steps=0)


@pytest.mark.slow
def test_limit_is_reached_after_half_an_hour_of_play():
    env = AtariEnvironment("Breakout")  # without a ball it does not end
    env.reset()
    steps = 1
    while not (timestep := env.step(NOOP)).last():
        steps += 1
    assert (steps, env._ale.getEpisodeFrameNumber()) == (27_000, 108_000)
    assert timestep.discount == 1.0


# In Assault, what the console draws when it is switched on is seen.
@pytest.mark.parametrize(
    ("game", "settings"),
    [("Pong", {}), ("Assault", {}), ("Breakout", dict(sticky=0.0, noops=30, life_loss=True))],
    ids=["sticky", "drawing", "noops"],
)
def test_episodes_repeat_bit_for_bit_wherever_they_begin(game, settings):
    first, second, other = (AtariEnvironment(game, 5, i, **settings) for i in (2, 2, 1))
    actions = choose(80)
    play(first, actions[:17])  # what went before leaves no trace
    second.episode = other.episode = 1
    expected = play(first, actions)
    assert play(second, actions) == expected
    assert play(other, actions) != expected
    assert play(first, actions) != expected


def executed(env, actions):
    """Returns what reaches the console, a row of frames for each action."""
    console, frames = env._env.unwrapped, []
    step = console.step
    console.step = lambda action: frames.append(action) or step(action)
    env.reset()
    for action in actions:
        env.step(action)
    return np.reshape(frames, (len(actions), -1))


def test_sticky_frames_repeat_the_one_before():
    asked = np.resize(np.int32([2, 3]), 800)
    frames = executed(AtariEnvironment("Breakout"), asked)
    assert frames.shape == (800, 4)
    # Of a new action, a frame is late with probability 1/4, and the next only if it was.
    np.testing.assert_allclose((frames != asked[:, None]).mean(0)[:2], [0.25, 0.0625], atol=0.05)
    np.testing.assert_array_equal(
        executed(AtariEnvironment("Breakout", sticky=0.0), asked[:20]),
        asked[:20, None].repeat(4, 1),
    )


@pytest.mark.parametrize("life_loss", [False, True])
def test_discount_is_zero_where_a_life_is_lost_if_so_set(life_loss):
    env = AtariEnvironment("Breakout", sticky=0.0, life_loss=life_loss)
    env.reset()
    lives, zeros = env._ale.lives(), 0
    assert lives == 5
    for _ in range(1000):
        timestep = env.step(FIRE)  # serves, and lets the ball fall
        lost, lives = env._ale.lives() < lives, env._ale.lives()
        assert timestep.last() == (lives == 0)
        zero = timestep.last() or (life_loss and lost)
        zeros += zero
        assert timestep.discount == (0.0 if zero else 1.0)
        if timestep.last():
            break
    assert zeros == (5 if life_loss else 1)


def test_noops_are_frames_before_an_episode():
    def begins(**settings):
        env, found = AtariEnvironment("Pong", sticky=0.0, **settings), []
        for _ in range(12):
            env.reset()
            found.append(env._ale.getEpisodeFrameNumber())
        return found

    assert {*begins()} == {0}
    frames = begins(noops=5)
    assert {*frames} <= {1, 2, 3, 4, 5}
    assert len({*frames}) > 2


def test_actions_are_all_or_those_of_the_game():
    assert AtariEnvironment("Pong").action_spec().num_values == 18
    assert AtariEnvironment("Pong", full_actions=False).action_spec().num_values == 6


def test_mode_and_difficulty_stay():
    def second(**settings):
        env = AtariEnvironment("Breakout", sticky=0.0, **settings)
        env.reset()
        return play(env, np.full(60, FIRE))

    assert second() == second(mode=0, difficulty=0)
    assert len({second(), second(mode=12), second(difficulty=1)}) == 3


def test_render_draws_the_screen_in_colour():
    env = environments.make("atari:MsPacman", render=True)
    env.reset()
    before = env.render()
    for _ in range(70):
        env.step(NOOP)
    after = env.render()
    assert before.shape == (210, 160, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
    assert (after[..., 0] != after[..., 2]).any()
    assert env.frames_per_second == 15


def test_observations_are_as_the_spec_says_and_not_written_over():
    env = environments.make("atari:Pong")
    spec = env.observation_spec()
    assert (spec.shape, spec.dtype, spec.minimum.min(), spec.maximum.max()) == (
        (84, 84, 1),
        np.uint8,
        0,
        255,
    )
    kept = [env.reset().observation, *(env.step(a).observation for a in choose(60))]
    copies = [x.copy() for x in kept]
    for action in choose(10):
        env.step(action)
    for x, copy in zip(kept, copies, strict=True):
        spec.validate(x)
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(sticky=1.0), r"sticky must be in \[0, 1\), got 1.0"),
        (dict(noops=-1), "noops must be at least 0, got -1"),
        (dict(frame_skip=0), "frame_skip must be at least 1, got 0"),
        (dict(mode=9), r"mode must be one of \[0, 1\] .* got 9 and None"),
        (dict(difficulty=7), r"difficulty one of \[0, 1, 2, 3\], got None and 7"),
    ],
)
def test_settings_out_of_range_say_so(settings, message):
    with pytest.raises(SettingError, match=message):
        AtariEnvironment("Pong", **settings)


def test_names_are_of_games_for_one_player():
    names = environments.available()
    assert {"atari:Pong", "atari:MontezumaRevenge"} <= {*names}
    assert "atari:Combat" not in names
    assert not any(name.startswith("gym:") and "Pong" in name for name in names)
    with pytest.raises(SettingError, match="'atari:Pnog'; did you mean 'atari:Pong'"):
        environments.make("atari:Pnog")


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "rlws.environments.atari_adapter")
    with pytest.raises(SettingError, match=r"'atari:Pong' needs .*'rlws\[atari\]'"):
        environments.make("atari:Pong")


@pytest.mark.parametrize("how", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_environments_stepped_together_begin_as_they_do_alone(how):
    envs, actions = make_vector("atari:Breakout", 2, 3, how), choose(60).reshape(30, 2)
    rows = [envs.reset(), *map(envs.step, actions)]
    envs.close()
    assert envs.spec.max_episode_steps == 27_000
    for i in range(2):
        env = AtariEnvironment("Breakout", 3, i)
        for row, timestep in zip(rows, [env.reset(), *map(env.step, actions[:, i])], strict=True):
            assert row.step_type[i] == timestep.step_type
            np.testing.assert_array_equal(row.observation[i], timestep.observation)


@pytest.mark.parametrize("how", ["native", "envpool"])
def test_other_vector_environments_are_refused(how):
    with pytest.raises(SettingError, match="vector environments must be gymnasium's"):
        make_vector("atari:Pong", 2, 0, how)
