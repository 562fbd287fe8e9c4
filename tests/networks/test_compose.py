"""Composed networks: any leading axes, any observation, and errors that name both shapes."""

import pathlib
import re

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

import rlws
from rlws.networks import GRU, LSTM, MLP, Categorical, CategoricalPolicy, Value, compose
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec, Trajectory

KEY = jax.random.key(1)
VECTOR = specs.Array((3,), np.float32)
NESTED = {
    "x": VECTOR,
    "inner": (specs.DiscreteArray(4), specs.BoundedArray((2, 2), np.int32, 0, 9)),
}


def spec_of(observations=VECTOR, actions=None):
    return EnvironmentSpec(observations, actions or specs.DiscreteArray(2))


def network_of(observations=VECTOR, backbone=None, shared=True):
    backbone = backbone or MLP((5,))
    heads = {"policy": CategoricalPolicy(2, scale=1.0), "value": Value()}
    return compose(spec_of(observations), backbone, shared=shared, **heads)


def observe(*leading):
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(*leading, 3)).astype(np.float32),
        "inner": (
            rng.integers(0, 4, leading, np.int32),
            rng.integers(0, 10, (*leading, 2, 2), np.int32),
        ),
    }


def test_apply_agrees_over_any_leading_axes():
    network = network_of(NESTED)
    params = jax.jit(network.init)(KEY)
    apply = lambda params, x: jax.device_get(jax.jit(network.apply)(params, x))
    observation = observe(2, 3, 4)
    whole = apply(params, observation)
    assert whole.policy.logits.shape == (2, 3, 4, 2)
    assert whole.value.shape == (2, 3, 4)
    flat = apply(params, jax.tree.map(lambda x: x.reshape(24, *x.shape[3:]), observation))
    np.testing.assert_allclose(flat.value, whole.value.reshape(24), atol=1e-6)
    for index in [(0, 0, 0), (1, 2, 3), (1, 0, 2)]:
        one = apply(params, jax.tree.map(lambda x, i=index: x[i], observation))
        assert one.value.shape == ()
        np.testing.assert_allclose(one.policy.logits, whole.policy.logits[index], atol=1e-6)
        np.testing.assert_allclose(one.value, whole.value[index], atol=1e-6)
    assert np.ptp(whole.value) > 0.1  # they would not agree by being constant


def trajectory_of(observation):
    steps = len(observation) - 1
    first = np.arange(steps + 1) == 0
    nothing, last = np.zeros(steps), np.zeros(steps, bool)
    return Trajectory(observation, nothing, nothing, nothing, nothing, first, last)


def test_step_and_unroll_of_a_network_without_core_are_apply():
    network = network_of()
    x = np.eye(3, dtype=np.float32)
    assert network.initial_state() == ()

    @jax.jit
    def found(key):
        params = network.init(key)
        outputs, state = network.step(params, x[0], True, ())
        assert state == ()
        unrolled = network.unroll(params, trajectory_of(x))
        applied = (network.apply(params, y).value for y in (x[0], x))
        return outputs.value, unrolled.value, *applied

    step, unrolled, one, whole = found(KEY)
    np.testing.assert_array_equal(step, one)
    np.testing.assert_array_equal(unrolled, whole)


def see(features):
    return features  # a head that shows what the backbone gives


def test_core_begins_anew_with_every_episode():
    network = network_of(backbone=GRU(MLP((4,)), 4))
    rng = np.random.default_rng(0)
    params, observation = jax.jit(network.init)(KEY), rng.normal(size=(4, 3)).astype(np.float32)
    stale = {"backbone": np.float32(rng.normal(size=4))}

    @jax.jit
    def values(observation, first, core):
        zeros = jnp.zeros(len(first) - 1)
        repeated = {"core": jax.tree.map(lambda x: jnp.tile(x, (len(zeros), 1)), core)}
        steps = Trajectory(observation, zeros, zeros, zeros, zeros, first, zeros > 0, repeated)
        return network.unroll(params, steps).value

    whole = values(observation, np.array([False, False, True, False]), stale)
    second = values(observation[2:], np.array([True, False]), network.initial_state())
    np.testing.assert_allclose(whole[2:], second, atol=1e-6)
    first = values(observation[:2], np.array([False, False]), network.initial_state())
    assert np.abs(whole[:2] - first).min() > 1e-3  # where nothing begins the state counts
    step = jax.jit(lambda core: network.step(params, observation[0], True, core)[0].value)
    np.testing.assert_allclose(step(stale), step(network.initial_state()), atol=1e-6)


def test_observations_reach_the_backbone_discrete_ones_one_hot():
    observation = {
        "x": np.array([1.5, -2, 3], np.float32),
        "inner": (np.int32(2), np.array([[7, 0], [1, 9]], np.int32)),
    }
    network = compose(spec_of(NESTED), lambda o: o, seen=see)
    seen = jax.jit(network.apply)({}, observation).seen
    np.testing.assert_array_equal(seen["inner"][0], [0, 0, 1, 0])
    np.testing.assert_array_equal(seen["inner"][1], observation["inner"][1])
    np.testing.assert_array_equal(seen["x"], observation["x"])
    batch = jax.tree.map(lambda x: np.stack([x] * 3), observation)
    assert jax.eval_shape(network.apply, {}, batch).seen["inner"][0].shape == (3, 4)


def test_mlp_sees_all_leaves_side_by_side_as_float32():
    network = compose(spec_of(NESTED), MLP(()), seen=see)
    observation = observe()
    seen = jax.jit(network.apply)({}, observation).seen
    number, table = observation["inner"]
    expected = [*np.eye(4)[number], *table.ravel(), *observation["x"]]
    np.testing.assert_array_equal(seen, np.float32(expected))
    assert seen.dtype == jnp.float32


def test_init_depends_on_its_key_alone():
    both = jax.jit(lambda key: (network_of().init(key), network_of().init(key)))
    one, again = both(KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, one, again))
    differ = lambda x, y: np.array_equal(x, y) == (x.ndim == 1)  # weights do, biases are 0
    assert jax.tree.all(jax.tree.map(differ, one, both(jax.random.key(2))[0]))


def test_backbones_are_shared_or_apart():
    x = np.array([1.0, 2, 3], np.float32)
    for shared, backbones in [(True, {"backbone"}), (False, {"policy_backbone", "value_backbone"})]:
        network = network_of(shared=shared)
        params, apply = jax.jit(network.init)(KEY), jax.jit(network.apply)
        assert {name.split("/")[0] for name in params} == backbones | {"policy", "value"}
        before = apply(params, x)
        for backbone in backbones:
            moved_by = {name: float(name.startswith(f"{backbone}/")) for name in params}
            changed = {
                name: jax.tree.map(
                    lambda p, by=moved_by[name]: np.asarray(p) + np.float32(by), module
                )
                for name, module in params.items()
            }
            after = apply(changed, x)
            moved = {
                "policy": not np.array_equal(before.policy.logits, after.policy.logits),
                "value": not np.array_equal(before.value, after.value),
            }
            assert moved == {head: shared or backbone.startswith(head) for head in moved}
    apart = (params[f"{head}_backbone/linear"]["w"] for head in ("policy", "value"))
    assert not np.array_equal(*apart)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (
            {"policy": CategoricalPolicy(3)},
            "head 'policy' has logits of shape (3,), but the environment's 2 actions need shape "
            "(2,)",
        ),
        (
            {"policy": lambda x: Categorical(hk.Linear(4)(x).reshape(2, 2))},
            "head 'policy' has logits of shape (2, 2), but the environment's 2 actions need",
        ),
        ({"value": lambda x: hk.Linear(1)(x)}, "head 'value' must have shape (), got (1,)"),
    ],
)
def test_compose_refuses_heads_of_the_wrong_size(heads, message):
    with pytest.raises(SettingError) as error:
        compose(spec_of(), MLP((4,)), **heads)
    assert message in str(error.value)


def test_compose_refuses_a_categorical_head_for_continuous_actions():
    continuous = spec_of(actions=specs.BoundedArray((2,), np.float32, -1, 1))
    with pytest.raises(SettingError, match=r"head 'policy' is categorical and needs a discrete"):
        compose(continuous, MLP((4,)), policy=CategoricalPolicy(2))


@pytest.mark.parametrize(
    ("observations", "observation", "message"),
    [
        (VECTOR, np.zeros(4), r"observation must have shape \(3,\) after.* axes \(\), got \(4,\)"),
        (VECTOR, np.zeros((5, 2)), r"shape \(3,\) after leading axes \(5,\), got \(5, 2\)"),
        (VECTOR, np.zeros(()), r"observation must have shape \(3,\).*got \(\)"),
        (
            NESTED,
            {"x": np.zeros((6, 3)), "inner": (np.zeros(6, int), np.zeros((7, 2, 2), int))},
            r"observation\['inner'\]\[1\] must have shape \(2, 2\) after leading axes \(6,\)",
        ),
        (NESTED, {"x": np.zeros(3)}, r"observation must have the structure .*inner.*, got .*\{'x'"),
    ],
)
def test_apply_names_both_shapes_of_a_wrong_observation(observations, observation, message):
    network = network_of(observations)
    params = jax.eval_shape(network.init, KEY)
    with pytest.raises(SettingError, match=message):
        jax.eval_shape(network.apply, params, observation)


def test_haiku_is_transformed_in_one_place():
    found = []
    for path in sorted(pathlib.Path(rlws.__file__).parent.rglob("*.py")):
        calls = re.findall(r"\b(?:hk\.(?:multi_)?|haiku\.)?transform\w*\(", path.read_text())
        found += [(path.name, call) for call in calls if "transform" in call and "hk" in call]
    assert found == [("compose.py", "hk.multi_transform(")]


def joined(core, steps=3):
    """Returns a recurrent network, its parameters, and a trajectory of two episodes, then each."""
    network = compose(spec_of(), core, value=Value())
    params = jax.jit(network.init)(KEY)
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(2 * steps + 1, 3)).astype(np.float32)
    first = np.zeros(2 * steps + 1, bool)
    first[[0, steps]] = True
    begun = lambda n: jax.tree.map(
        lambda x: np.broadcast_to(x, (n, *jnp.shape(x))), network.initial_state()
    )

    def part(begin, end):
        zeros = np.zeros(end - begin, np.float32)
        seen, start = observation[begin : end + 1], first[begin : end + 1]
        extras = {"core": begun(end - begin)}
        return Trajectory(seen, zeros, zeros, zeros, zeros, start, zeros > 0, extras)

    return network, params, part(0, 2 * steps), part(0, steps), part(steps, 2 * steps)


@pytest.mark.parametrize("core", [GRU(MLP((4,)), 5), LSTM(MLP((4,)), 5)], ids=["GRU", "LSTM"])
def test_two_episodes_in_an_unroll_are_bitwise_those_two_alone(core):
    network, params, both, one, other = joined(core)
    unroll = jax.jit(lambda trajectory: network.unroll(params, trajectory).value)
    whole, first, second = (np.asarray(unroll(x)) for x in (both, one, other))
    np.testing.assert_array_equal(whole[:3], first[:3])
    np.testing.assert_array_equal(whole[3:], second)
    assert not np.allclose(whole[3], first[3] + 1e-3)


def test_an_lstm_is_the_one_of_the_textbook():
    """Hochreiter and Schmidhuber, 1997, with forget gates whose bias begins at 1, in NumPy."""
    network, params, _, one, _ = joined(LSTM(MLP((4,), "relu"), 5))
    found = np.asarray(jax.jit(network.unroll)(params, one).value)
    parts = {
        name: {k: np.asarray(v, np.float64) for k, v in x.items()} for name, x in params.items()
    }
    backbone, core = (
        next(x for name, x in parts.items() if name.startswith(start))
        for start in ("backbone/", "backbone_core/")
    )
    head = next(x for name, x in parts.items() if name.startswith("value/"))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    h = c = np.zeros(5)
    for t, seen in enumerate(one.observation):
        features = np.maximum(seen @ backbone["w"] + backbone["b"], 0)
        gates = np.concatenate([features, h]) @ core["w"] + core["b"]
        i, g, f, o = np.split(gates, 4)
        if t == 3:  # the next episode begins with it
            gates = np.concatenate([features, np.zeros(5)]) @ core["w"] + core["b"]
            i, g, f, o = np.split(gates, 4)
            c = np.zeros(5)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(found[t], h @ head["w"][:, 0] + head["b"][0], atol=1e-5)
