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
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from plain import IN_BLOCKS, ROW_BY_ROW

from agents_zoo import ppo
from rlws.environments import JaxEnvironment, resolve, rules
from rlws.environments.checks import EnvironmentFault
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.environments.jax_environment import first, following
from rlws.environments.vector import make_vector
from rlws.networks import MLP
from rlws.numerics import trees
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
    list(HostTrainer(num_envs=num_envs).train(IN_BLOCKS, make, steps=10))


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


@pytest.mark.parametrize(
    ("low", "high", "value", "fits"),
    [
        (5e5, 5e5 + 1, 5e5 + 1 / 3, False),
        (0.0, 5e5, 5e5 - 1 / 3, True),
        (0.0, 1e12, 1e9 + 1, True),
        (-1e308, 1e308, 1e9 + 1, False),
        (0.0, np.inf, 1e9 + 1, False),
        (0.1, 0.1, 0.1, True),
    ],
)
def test_bounds_say_by_how_much_a_number_may_be_rounded(low, high, value, fits):
    found = rules.unlike(specs.BoundedArray((), float, low, high), np.float64(value))
    assert (found is None) == fits


REAL32, REAL64 = (spaces.Box(-np.inf, np.inf, (2,), kind) for kind in (np.float32, np.float64))
X = np.zeros(2, np.uint8)
UINT8, PAIR, WIDE = spaces.Box(0, 255, (2,), np.uint8), spaces.Discrete(2), np.float64([0, 1])


class Says(gymnasium.Env):
    """Shows what it is told to, whatever its space says, and answers as it is told to."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, value, step=None, reset=None):
        self.observation_space, self.value, self.time = space, value, 0
        self.stepped, self.begun = step, reset

    def _show(self):
        return self.value() if callable(self.value) else self.value

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return (self._show(), {}) if self.begun is None else self.begun

    def step(self, action):
        self.time += 1
        ended = self.time == 4
        return (self._show(), 0.0, False, ended, {}) if self.stepped is None else self.stepped


def of_gymnasium(*args, **kwargs):
    return lambda seed, index: GymEnvironment(Says(*args, **kwargs), seed, index)


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (UINT8, np.float32([0.1, 0.9]), r"observation must be uint8\[2\], .* got float32\[2\]"),
        (
            UINT8,
            np.int64([256, 0]),
            "observation must fit into uint8, got 256, which it holds as 0",
        ),
        (
            UINT8,
            np.int64([-1, 0]),
            "observation must fit into uint8, got -1, which it holds as 255",
        ),
        (spaces.Box(0, 10, (2,), np.int32), 0.5 * WIDE, r"must be int32\[2\], .* got float64"),
        (PAIR, 0.2, r"observation must be int32\[\], .* got float64\[\]"),
        (PAIR, 5, r"observation must be within \[0, 1\], got 5"),
        (spaces.MultiDiscrete([2, 2]), WIDE, r"must be int64\[2\], .* got float64\[2\]"),
        (spaces.MultiDiscrete([2, 2]), np.int64([0, 2]), r"must be within \[\[0 0\], \[1 1\]\]"),
        (spaces.MultiBinary(2), 0.2 + WIDE, r"must be int8\[2\], .* got float64\[2\]"),
        (spaces.Dict(a=UINT8), {"a": WIDE}, r"\['a'\] must be uint8\[2\], .* got float64"),
        (spaces.Dict(a=UINT8), {"b": WIDE}, r"must be \{'a': ...\}, .* got \{'b': ...\}"),
        (spaces.Dict(a=UINT8), {"a": X, "b": 3}, r"got \{'a': ..., 'b': ...\}"),
        (spaces.Dict(a=UINT8), WIDE, r"must be \{'a': ...\}, .* got \.\.\."),
        (spaces.Tuple([UINT8, PAIR]), ([1, 2],), r"must be \(..., ...\), .* got \(\[..., ...\],\)"),
        (UINT8, [[1], [2, 3]], r"must be ..., as the spec says, got \[\[...\], \[..., ...\]\]"),
        (PAIR, None, r"must be int32\[\], .* got object\[\]"),
        (spaces.Discrete(2, start=1), "1", r"must be int32\[\], .* got <U1\[\]"),
        # Beyond 2 ** 24, float32 does not tell whole numbers apart.
        (REAL64, 1e9 + WIDE, "float32.* got 1000000001.0"),
        (REAL32, 1e9 + WIDE, "must fit into float32, got 1000000001.0, which it holds as 10000"),
        (REAL32, 1e300 * WIDE, "must fit into float32, got 1e.300, which it holds as inf"),
    ],
)
def test_what_a_space_does_not_hold_is_named_and_not_cast(space, value, message):
    with pytest.raises(EnvironmentFault, match=message):
        train(of_gymnasium(space, value))
    later = Says(space, space.sample(), (value, 0.0, False, False, {}))
    with pytest.raises(EnvironmentFault, match=r"step 1: .*" + message):
        train(lambda seed, index: GymEnvironment(later, seed, index))


PPO = ppo.Config(MLP((4,)), unroll_length=8, minibatches=1, epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("config", [IN_BLOCKS, ROW_BY_ROW], ids=["in blocks", "row by row"])
def test_what_jax_does_not_hold_is_found_in_any_row(config):
    shown = iter([*[0 * WIDE] * 12, 1e9 + WIDE])
    make = of_gymnasium(REAL64, lambda: next(shown, WIDE))
    with pytest.raises(EnvironmentFault, match=r"episode 2, step 2: .* float32 .* 1000000001.0"):
        list(HostTrainer().train(config, make, steps=40))


@pytest.mark.parametrize(
    ("space", "value", "seen"),
    [
        (UINT8, np.int64([255, 0]), np.uint8([255, 0])),
        (UINT8, [1, 2], np.uint8([1, 2])),
        (spaces.Box(-1, 1, (2,), np.float32), WIDE, np.float32([0, 1])),
        (spaces.Box(-1, 1, (2,), np.float32), [0, 1], np.float32([0, 1])),
        (spaces.Discrete(2, start=5), np.int64(6), np.int32(1)),
        (REAL32, 1e6 + WIDE / 3, np.float32(1e6 + WIDE / 3)),
        (spaces.Box(-1e12, 1e12, (2,), np.float32), 1e9 + WIDE, np.float32([1e9, 1e9])),
        (spaces.Box(-1, 1, (2,), np.float16), WIDE / 3, np.float16(WIDE / 3)),
    ],
)
def test_what_a_space_holds_is_taken_as_its_type(space, value, seen):
    found = of_gymnasium(space, value)(0, 0).reset().observation
    assert found.dtype == seen.dtype
    np.testing.assert_array_equal(found, seen)


STEP = r"step must return \(observation, reward, terminated, truncated, info\), as gymnasium's do"


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
        *(
            ({"step": (X, 0.0, *flags, {})}, f"step: {name} must be a bool, got {got}")
            for flags, name, got in (
                ((None, False), "terminated", "None"),
                ((False, {}), "truncated", "{}"),
                ((0.5, False), "terminated", "0.5"),
                (("no", False), "terminated", "'no'"),
                ((False, np.zeros(1, bool)), "truncated", "array"),
            )
        ),
    ],
)
def test_an_older_interface_or_a_slip_is_named(answers, message):
    with pytest.raises(EnvironmentFault, match=f"^environment 0, .*{message}"):
        train(of_gymnasium(UINT8, X, **answers))
    if message.startswith("step 1: "):
        message = message.removeprefix("step 1: ")
    several = lambda seed, count: SyncVectorEnv([lambda: Says(UINT8, X, **answers)] * count)
    with pytest.raises(EnvironmentFault, match=message):  # not gymnasium's, or none at all
        make_vector(several, 2)


def test_a_reset_without_a_seed_is_named():
    class Older(Says):
        def reset(self):
            return super().reset()

    with pytest.raises(EnvironmentFault, match=r"^environment 0, .*reset of Older must take seed"):
        train(lambda seed, index: GymEnvironment(Older(UINT8, X)))


def test_what_gymnasium_would_cast_in_another_process_is_named_before_there_is_one():
    gymnasium.register("Says-v0", lambda: Says(UINT8, np.float32([0.1, 0.9])))
    try:
        for vectorization in ("sync", "async"):
            with pytest.raises(EnvironmentFault, match=r"must be uint8\[2\], .* got float32\[2\]"):
                make_vector("gym:Says-v0", 2, 0, vectorization)
    finally:
        del gymnasium.registry["Says-v0"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((np.zeros((2, 2)), np.zeros(2), np.zeros(2, bool), {}), "must return .*got a tuple of 4"),
        (
            (np.zeros((2, 2)), np.zeros((2, 1)), np.zeros(2, bool), np.zeros(2, bool), {}),
            r"must return 2 numbers as rewards, .* got float64\[2, 1\], bool\[2\], bool\[2\]",
        ),
        (
            (np.zeros((2, 2)), np.zeros(2), np.zeros(2, int), np.zeros(2, bool), {}),
            r"got float64\[2\], int64\[2\], bool\[2\]",
        ),
    ],
)
def test_slips_of_environments_stepped_together_are_named(answer, message):
    class Several(gymnasium.vector.VectorEnv):
        num_envs, single_action_space, single_observation_space = 2, PAIR, REAL64
        autoreset_mode = AutoresetMode.NEXT_STEP

        def reset(self, *, seed=None, options=None):
            return np.zeros((2, 2)), {}

        def step(self, actions):
            return answer

    trainer = HostTrainer(num_envs=2, vectorization="sync")
    with pytest.raises(EnvironmentFault, match=message):
        list(trainer.train(IN_BLOCKS, lambda seed, count: Several(), steps=10))


def test_what_is_made_in_vain_is_closed():
    closed = []

    class Closing(Says):
        def close(self):
            closed.append(self)

    class Else:
        close = Closing.close

    several = lambda seed, count: SyncVectorEnv([lambda: Closing(UINT8, None)] * count)
    trainer = HostTrainer(vectorization="sync")
    for call, kind in (
        (lambda: GymEnvironment(Closing(spaces.Text(3), "abc")), SettingError),
        (lambda: resolve.host(lambda seed, index: Else(), 0, 0), SettingError),
        (lambda: list(trainer.train(IN_BLOCKS, several, steps=9)), ValueError),
    ):
        closed.clear()
        with pytest.raises(kind):
            call()
        assert len(closed) == 1


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
        state = (jnp.int32(0), "text") if self.kind == "text" else jnp.int32(0)
        return state, dm_env.restart(x) if self.kind == "restart" else first(x)

    def step(self, state, action):
        timestep = following(jnp.zeros(1), 1.0, jnp.bool_(False), state > 3)
        if self.kind == "reward":
            timestep = timestep._replace(reward=jnp.zeros(1))
        if self.kind == "bool":
            timestep = timestep._replace(discount=True)
        if self.kind == "none":
            timestep = following(jnp.zeros(1), None, state > 3, False)
        if self.kind == "flags":
            timestep = following(jnp.zeros(1), 1.0, False, True)
        if self.kind == "observation":
            timestep = timestep._replace(observation=jnp.zeros(2))
        if self.kind == "whole":
            timestep = timestep._replace(observation=jnp.full(1, 2**24 + 1))
        state = {"float": state + 1.0, "structure": (state, state)}.get(self.kind, state + 1)
        return timestep if self.kind == "alone" else (state, timestep)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("restart", r"Slip.reset: step_type must be an array int32\[\], got .*FIRST"),
        ("reward", r"Slip.step: reward must be an array float32\[\]"),
        ("bool", r"Slip.step: discount must be an array float32\[\], got True"),
        ("observation", r"Slip.step: observation must be float32\[1\], .* got float32\[2\]"),
        ("none", r"Slip.step: reward must be an array float32\[\], got None"),
        ("whole", "Slip.step: observation must be float32, as the spec says, got int32"),
        ("float", r"Slip.step: state must stay int32\[\], as reset returns it, got float32\[\]"),
        ("structure", "Slip.step must return a state of the structure it got"),
        ("text", r"Slip.reset must return .* numbers and arrays of them, got 'text' at \[0\]\[1\]"),
        ("alone", r"Slip.step must return \(state, timestep\), got"),
    ],
)
def test_a_slip_in_jax_is_named_before_anything_is_compiled(kind, message):
    for trainer in (DeviceTrainer(), HostTrainer()):
        with pytest.raises(EnvironmentFault, match=message):
            list(trainer.train(IN_BLOCKS, Slip(kind), steps=10))


def test_flags_of_python_will_do_in_jax():
    *_, report = DeviceTrainer().train(IN_BLOCKS, Slip("flags"), steps=10)
    assert (report.episodes, report.steps) == (10, 10)


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

    *_, report = HostTrainer().train(IN_BLOCKS, make, steps=13, report_period=13)
    arrays = trees.flatten(report.snapshot().arrays)
    logged, seen = arrays["environments/actions_0"], made[0].seen
    assert len(logged) == 3
    np.testing.assert_array_equal(logged, seen[-3:])
    assert np.abs(logged).max() > 0


class Reusing(gymnasium.Env):
    """Shows the same array all the time, changed in place, or a copy of it."""

    observation_space, action_space = spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(2)

    def __init__(self, copies, index):
        self.copies, self.seen = copies, np.float32([index, 0])

    def _show(self):
        return self.seen.copy() if self.copies else self.seen

    def reset(self, *, seed=None, options=None):
        self.seen[1] = 0
        return self._show(), {}

    def step(self, action):
        self.seen[1] += 1
        return self._show(), float(action), False, bool(self.seen[1] == 5), {}


@pytest.mark.parametrize("config", [IN_BLOCKS, ROW_BY_ROW], ids=["in blocks", "row by row"])
def test_an_environment_may_change_what_it_has_shown(config):
    def learned(copies):
        make = lambda seed, index: GymEnvironment(Reusing(copies, index), seed, index)
        *_, report = HostTrainer(num_envs=2).train(config, make, steps=60, report_period=7)
        return trees.digest(trees.flatten(report.snapshot().arrays))

    assert learned(copies=True) == learned(copies=False)


def test_discrete_actions_are_as_the_space_samples_them():
    environment = Greedy(spaces.Discrete(2))
    list(HostTrainer().train(IN_BLOCKS, lambda *_: GymEnvironment(environment), steps=10))
    assert len(environment.seen) == 10


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-1, 1, (0,), np.float32), "each part of it, must hold a number at least"),
        (spaces.Dict(), "each part of it, must hold a number at least"),
        (spaces.Dict(a=spaces.Box(-1, 1, (0,)), b=PAIR), "each part of it, must hold a number"),
    ],
)
def test_nothing_to_see_is_named(space, message):
    with pytest.raises(SettingError, match=message):
        list(HostTrainer().train(PPO, of_gymnasium(space, space.sample()), steps=10))


def test_no_action_to_take_is_named():
    environment = Greedy(spaces.Box(-1, 1, (0,), np.float32))
    with pytest.raises(SettingError, match="needs actions that are a vector of real numbers"):
        list(HostTrainer().train(ppo.Config(), lambda *_: GymEnvironment(environment), steps=10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 0.5), (np.finfo(np.float32).min, np.finfo(np.float32).max), (0, np.inf)]
)
def test_odd_bounds_make_finite_actions(low, high):
    low, high = np.float32([low, -1]), np.float32([high, 1])
    environment = Greedy(spaces.Box(low, high, dtype=np.float32))
    *_, report = HostTrainer().train(PPO, lambda *_: GymEnvironment(environment), steps=20)
    assert report.updates
    assert np.isfinite(environment.seen).all()
    assert all(environment.action_space.contains(x) for x in environment.seen)
