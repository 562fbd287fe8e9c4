"""Environments that do not do what they say are named before anything is compiled."""

import dataclasses

import dm_env
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces

from agents_zoo import ppo, reinforce
from rlws.environments import JaxEnvironment, rules
from rlws.environments.checks import EnvironmentFault
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.environments.jax_environment import first, following
from rlws.networks import MLP
from rlws.numerics import checkpoint
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.types import EnvironmentSpec


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Pair:
    first: object
    second: object


class Liar(dm_env.Environment):
    """Says its observations are {"x": float32 [2]}, and has others."""

    max_episode_steps = 5

    def __init__(self, observation, num_actions=2, first=dm_env.restart):
        self._observation, self._num_actions, self._first = observation, num_actions, first

    def reset(self):
        return self._first(self._observation)

    def step(self, action):
        return dm_env.transition(0.0, self._observation)

    def observation_spec(self):
        return {"x": specs.Array((2,), np.float32)}

    def action_spec(self):
        return specs.DiscreteArray(self._num_actions)


def train(make, num_envs=1):
    config = reinforce.Config(MLP((4,)), max_episode_length=5)
    list(HostTrainer(num_envs=num_envs).train(config, make, steps=10))


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"x": np.zeros(1, np.float32)}, r"\['x'\] must be float32\[2\], .* got float32\[1\]"),
        ({"x": np.zeros((1, 2), np.float32)}, r"got float32\[1, 2\]"),
        ({"x": np.zeros(2, complex)}, r"got complex128\[2\]"),
        ({"x": np.float32([0, np.nan])}, r"\['x'\] must be finite"),
        ({"y": np.zeros(2, np.float32)}, r"must be \{'x': ...\}, .* got \{'y': ...\}"),
        (np.zeros(2, np.float32), r"must be \{'x': ...\}"),
    ],
)  # fmt: skip
def test_a_first_observation_unlike_its_spec_is_named(observation, message):
    with pytest.raises(SettingError, match=f"environment 0, episode 0, step 0: .*{message}"):
        train(lambda seed, index: Liar(observation))


def test_a_wider_number_of_the_same_kind_is_fine():
    train(lambda seed, index: Liar({"x": np.zeros(2)}))


def test_a_first_timestep_must_be_one():
    wrong = lambda observation: dm_env.transition(0.0, observation)
    with pytest.raises(
        SettingError, match="environment 0, episode 0, step 0: reset must return a FIRST"
    ):
        train(lambda seed, index: Liar({"x": np.zeros(2)}, first=wrong))


def test_environments_of_a_run_are_alike():
    make = lambda seed, index: Liar({"x": np.zeros(2, np.float32)}, num_actions=2 + index)
    with pytest.raises(SettingError, match="environment 1: its actions must be those of"):
        train(make, num_envs=2)


def test_unlike_takes_what_jax_takes():
    number = specs.Array((2,), np.float32)
    spec = {"none": None, "pair": Pair(number, {"x": number})}
    nest = {"none": None, "pair": Pair(np.zeros(2, np.float32), {"x": np.zeros(3, np.float32)})}
    found = rules.unlike(spec, nest)
    assert found.startswith("['pair'].second['x'] must be float32[2]")
    assert found.endswith("got float32[3]")


UINT8, PAIR, WIDE = spaces.Box(0, 255, (2,), np.uint8), spaces.Discrete(2), np.float64([0, 1])


class Says(gymnasium.Env):
    """Shows what it is told to, whatever its space says, and answers as it is told to."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, value, step=None, reset=None):
        self.observation_space, self.value = space, value
        self.stepped = (value, 0.0, False, False, {}) if step is None else step
        self.begun = (value, {}) if reset is None else reset

    def reset(self, *, seed=None, options=None):
        return self.begun

    def step(self, action):
        return self.stepped


def of_gymnasium(*args, **kwargs):
    return lambda seed, index: GymEnvironment(Says(*args, **kwargs), seed, index)


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (UINT8, np.float32([0.1, 0.9]), r"observation must be uint8\[2\], .* got float32\[2\]"),
        (UINT8, np.int64([256, 0]), r"observation must fit into uint8, got \[256 "),
        (UINT8, np.int64([-1, 0]), r"observation must fit into uint8, got \[-1 "),
        (spaces.Box(0, 10, (2,), np.int32), 0.5 * WIDE, r"must be int32\[2\], .* got float64"),
        (PAIR, 0.2, r"observation must be int32\[\], .* got float64\[\]"),
        (PAIR, 5, r"observation must be within \[0, 1\], got 5"),
        (spaces.MultiDiscrete([2, 2]), WIDE, r"must be int64\[2\], .* got float64\[2\]"),
        (spaces.MultiDiscrete([2, 2]), np.int64([0, 2]), r"must be within \[\[0 0\], \[1 1\]\]"),
        (spaces.MultiBinary(2), 0.2 + WIDE, r"must be int8\[2\], .* got float64\[2\]"),
        (spaces.Dict(a=UINT8), {"a": WIDE}, r"\['a'\] must be uint8\[2\], .* got float64"),
    ],
)
def test_what_a_space_does_not_hold_is_named_and_not_cast(space, value, message):
    with pytest.raises(EnvironmentFault, match=message):
        train(of_gymnasium(space, value))
    later = Says(space, space.sample(), (value, 0.0, False, False, {}))
    with pytest.raises(EnvironmentFault, match=r"step 1: .*" + message):
        train(lambda seed, index: GymEnvironment(later, seed, index))


@pytest.mark.parametrize(
    ("space", "value", "seen"),
    [
        (UINT8, np.int64([255, 0]), np.uint8([255, 0])),
        (UINT8, [1, 2], np.uint8([1, 2])),
        (spaces.Box(-1, 1, (2,), np.float32), WIDE, np.float32([0, 1])),
        (spaces.Box(-1, 1, (2,), np.float32), [0, 1], np.float32([0, 1])),
        (spaces.Discrete(2, start=5), np.int64(6), np.int32(1)),
    ],
)
def test_what_a_space_holds_is_taken_as_its_type(space, value, seen):
    found = of_gymnasium(space, value)(0, 0).reset().observation
    assert found.dtype == seen.dtype
    np.testing.assert_array_equal(found, seen)


STEP = r"step must return \(observation, reward, terminated, truncated, info\), as gymnasium's do"
BEGUN, X = np.zeros(2, np.uint8), np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"step": (X, 0.0, False, {})}, f"{STEP}, got a tuple of 4"),
        ({"step": X}, f"{STEP}, got ndarray"),
        ({"step": 1}, f"{STEP}, got int"),
        ({"reset": X}, r"reset must return \(observation, info\), as gymnasium's do, got ndarray"),
        ({"step": (X, None, False, False, {})}, "step 1: reward must be a number, None only on"),
        (
            {"step": (X, np.zeros(1), False, False, {})},
            r"step 1: reward must be a number, None only",
        ),
        ({"step": (X, "1", False, False, {})}, "reward must be a number, .* got '1'"),
    ],
)
def test_an_older_interface_or_a_slip_is_named(answers, message):
    with pytest.raises(EnvironmentFault, match=message):
        train(of_gymnasium(UINT8, X, **answers))


@pytest.mark.parametrize("step_type", [dm_env.StepType.MID, dm_env.StepType.LAST])
def test_only_on_first_there_may_be_no_discount(step_type):
    class Silent(Liar):
        def step(self, action):
            return dm_env.TimeStep(step_type, 0.0, None, self._observation)

    with pytest.raises(EnvironmentFault, match="step 1: discount must be a number, None only on"):
        train(lambda seed, index: Silent({"x": np.zeros(2, np.float32)}))


class Slip(JaxEnvironment):
    """An environment in JAX with a mistake of one kind."""

    kind: str

    def spec(self):
        return EnvironmentSpec(
            specs.Array((1,), np.float32), specs.DiscreteArray(2), max_episode_steps=5
        )

    def reset(self, key):
        x = jnp.zeros(1)
        return jnp.int32(0), dm_env.restart(x) if self.kind == "restart" else first(x)

    def step(self, state, action):
        timestep = following(jnp.zeros(1), 1.0, jnp.bool_(False), state > 3)
        if self.kind == "reward":
            timestep = timestep._replace(reward=jnp.zeros(1))
        if self.kind == "bool":
            timestep = timestep._replace(discount=True)
        if self.kind == "observation":
            timestep = timestep._replace(observation=jnp.zeros(2))
        state = {"float": state + 1.0, "structure": (state, state)}.get(self.kind, state + 1)
        return timestep if self.kind == "alone" else (state, timestep)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("restart", r"Slip.reset: step_type must be an array int32\[\], got .*FIRST"),
        ("reward", r"Slip.step: reward must be an array float32\[\]"),
        ("bool", r"Slip.step: discount must be an array float32\[\], got True"),
        ("observation", r"Slip.step: observation must be float32\[1\], .* got float32\[2\]"),
        ("float", r"Slip.step: state must stay int32\[\], as reset returns it, got float32\[\]"),
        ("structure", "Slip.step must return a state of the structure it got"),
        ("alone", r"Slip.step must return \(state, timestep\), got"),
    ],
)
def test_a_slip_in_jax_is_named_before_anything_is_compiled(kind, message):
    for trainer in (DeviceTrainer(), HostTrainer()):
        with pytest.raises(EnvironmentFault, match=message):
            list(trainer.train(reinforce.Config(), Slip(kind), steps=10))


class Greedy(gymnasium.Env):
    """Changes the action it is given, and wants one of NumPy."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, actions):
        self.action_space, self.seen = actions, []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.seen.append(np.array(action))
        assert isinstance(action, np.generic | np.ndarray)
        assert action.dtype == self.action_space.dtype
        if action.ndim:
            action *= 0
        return np.zeros(1, np.float32), float(action.sum()), False, len(self.seen) % 5 == 0, {}


@pytest.mark.parametrize("bound", [1.0, np.inf])
def test_an_environment_may_change_the_action_it_gets(bound):
    made = []

    def make(seed, index):
        made.append(Greedy(spaces.Box(-bound, bound, (2,), np.float32)))
        return GymEnvironment(made[-1], seed, index)

    config = ppo.Config(MLP((4,)), unroll_length=8, minibatches=1, epochs=1)
    *_, report = HostTrainer().train(config, make, steps=13, report_period=13)
    arrays = checkpoint.flatten(report.snapshot().arrays)
    logged, seen = arrays["environments/actions_0"], made[0].seen
    assert len(logged) == 3
    np.testing.assert_array_equal(logged, seen[-3:])
    assert np.abs(logged).max() > 0


def test_discrete_actions_are_as_the_space_samples_them():
    environment = Greedy(spaces.Discrete(2))
    config = reinforce.Config(max_episode_length=10)
    list(HostTrainer().train(config, lambda *_: GymEnvironment(environment), steps=10))
    assert len(environment.seen) == 10


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-1, 1, (0,), np.float32), "an observation must hold a number at least"),
        (spaces.Dict(), "an observation must hold a number at least"),
    ],
)
def test_nothing_to_see_is_named(space, message):
    with pytest.raises(SettingError, match=message):
        train(of_gymnasium(space, space.sample()))


def test_no_action_to_take_is_named():
    environment = Greedy(spaces.Box(-1, 1, (0,), np.float32))
    with pytest.raises(SettingError, match="needs actions that are a vector of real numbers"):
        list(HostTrainer().train(ppo.Config(), lambda *_: GymEnvironment(environment), steps=10))


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 0.5), (np.finfo(np.float32).min, np.finfo(np.float32).max), (0, np.inf)]
)
def test_odd_bounds_make_finite_actions(low, high):
    low, high = np.float32([low, -1]), np.float32([high, 1])
    environment = Greedy(spaces.Box(low, high, dtype=np.float32))
    config = ppo.Config(MLP((4,)), unroll_length=8, minibatches=1, epochs=1)
    *_, report = HostTrainer().train(config, lambda *_: GymEnvironment(environment), steps=20)
    assert report.updates
    assert np.isfinite(environment.seen).all()
    assert all(environment.action_space.contains(x) for x in environment.seen)
