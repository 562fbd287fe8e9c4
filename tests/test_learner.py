"""The learner's update: against numbers by hand, and invariant where it must be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlws.learner import MEMBERS, Learner, now_and_then
from rlws.networks import Network
from rlws.numerics.means import standardise
from rlws.settings import SettingError
from rlws.types import Trajectory

# The numbers of these tests are small integers and their counts powers of 2: float32 sums of any
# order are exact.
LINEAR = Network(
    lambda key: {"w": jax.random.randint(key, (2,), 1, 4).astype(jnp.float32)},
    lambda params, observation: observation @ params["w"],
)


SGD = optax.sgd(1.0)


class Regression(Learner):
    """Half the squared error of each reward, as one number a step or a sum over the trajectory."""

    per_step: bool = True

    def loss(self, params, trajectory, key, state):
        values = self.network.unroll(params, trajectory)[:-1]
        error = trajectory.reward - values
        terms = error**2 / 2
        metrics = {
            "error": error,
            "largest": jnp.abs(error).max(),
            "over_batch": jax.lax.pmean(trajectory.reward.sum(), "batch"),
            "draw": jax.random.randint(key, (), 0, 2**20).astype(jnp.float32),
        }
        return terms if self.per_step else jnp.sum(trajectory.weight * terms), metrics


def make(batch=4, steps=4, seed=0):
    rng = np.random.default_rng(seed)
    integers = lambda *shape: rng.integers(-3, 4, shape).astype(np.float32)
    return Trajectory(
        observation=integers(batch, steps + 1, 2),
        action=np.zeros((batch, steps), np.int32),
        reward=integers(batch, steps),
        discount=np.ones((batch, steps), np.float32),
        weight=np.ones((batch, steps), np.float32),
        first=np.zeros((batch, steps + 1), bool),
        last=np.zeros((batch, steps), bool),
    )


def ragged():
    """Returns four trajectories of 4, 2, 1 and 1 steps."""
    inside = np.arange(4)[None] < np.array([[4], [2], [1], [1]])
    return make()._replace(weight=inside.astype(np.float32))


def pad(batch, steps=2, trajectories=2):
    """Appends weightless steps and trajectories full of NaN."""

    def more(x):
        widths = [(0, trajectories), (0, steps)] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, widths, constant_values=np.nan if x.dtype == np.float32 else 1)

    padded = jax.tree.map(more, batch)
    return padded._replace(weight=np.nan_to_num(padded.weight))


@pytest.fixture(params=[True, False], ids=["per_step", "per_trajectory"])
def learner(request):
    return Regression(LINEAR, SGD, request.param)


KEY = jax.random.key(0)


def gradient(learner, batch):
    """Returns the gradient, loss and metrics at w = (1, 2)."""
    (loss, metrics), grads = compute(learner, batch, KEY)
    return jax.device_get((grads["w"], loss, metrics))


PARAMS = {"w": np.float32([1.0, 2.0])}


@functools.partial(jax.jit, static_argnums=0)
def compute(learner, batch, key):
    state = learner.init(KEY)._replace(params=PARAMS)
    return jax.value_and_grad(learner.batch_loss, has_aux=True)(PARAMS, batch.masked(), key, state)


def by_hand(learner, batch):
    """Returns the gradient and loss at w = (1, 2) from NumPy."""
    x, r, weight = (np.float64(x) for x in (batch.observation[:, :-1], batch.reward, batch.weight))
    error = r - x @ [1, 2]
    count = (weight > 0).sum() if learner.per_step else (weight > 0).any(1).sum()
    return -np.einsum("bt,btx->x", weight * error, x) / count, (weight * error**2 / 2).sum() / count


def test_batch_loss_follows_numpy(learner):
    grads, loss, metrics = gradient(learner, make())
    expected, expected_loss = by_hand(learner, make())
    np.testing.assert_allclose(grads, expected, rtol=1e-6)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    assert metrics["loss"] == loss


@pytest.mark.parametrize(("steps", "trajectories"), [(3, 0), (0, 2), (5, 1)])
def test_batch_loss_ignores_padding_to_the_bit(learner, steps, trajectories):
    batch = ragged()
    grads, loss, metrics = gradient(learner, batch)
    padded_grads, padded_loss, padded = gradient(learner, pad(batch, steps, trajectories))
    np.testing.assert_array_equal(grads, padded_grads)
    assert loss == padded_loss
    assert np.isfinite(loss)
    for name in ("error", "largest", "draw") if steps == 0 else ("error", "loss"):
        assert metrics[name] == padded[name], name
    np.testing.assert_allclose(grads, by_hand(learner, batch)[0], rtol=1e-6)


def test_batch_loss_of_a_batch_twice_is_the_same(learner):
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), make())
    grads, loss, _ = gradient(learner, make())
    grads_twice, loss_twice, _ = gradient(learner, twice)
    np.testing.assert_array_equal(grads_twice, grads)
    assert loss_twice == loss


def test_batch_loss_does_not_depend_on_order(learner):
    batch = ragged()
    batch = batch._replace(weight=batch.weight * np.float32([[1], [2], [1], [1]]))
    permuted = jax.tree.map(lambda x: x[np.array([3, 1, 0, 2])], batch)
    grads, loss, metrics = gradient(learner, batch)
    other_grads, other_loss, other_metrics = gradient(learner, permuted)
    np.testing.assert_array_equal(grads, other_grads)
    assert loss == other_loss
    assert metrics["error"] == other_metrics["error"]
    assert metrics["largest"] == other_metrics["largest"]


def test_batch_loss_averages_steps_over_the_batch_and_scalars_over_trajectories():
    batch = make(3, 4)._replace(observation=np.zeros((3, 5, 2), np.float32))
    reward = np.float32([[1, 0, 0, 0], [4, 4, 4, 4], [9, 9, 9, 9]])
    weight = np.float32([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    batch = batch._replace(reward=reward, weight=weight)
    _, loss, metrics = gradient(Regression(LINEAR, SGD, True), batch)
    assert loss == (0.5 + 3 * 8) / 4  # not the mean of the trajectories' means, 4.25
    assert metrics["error"] == (1 + 3 * 4) / 4
    assert metrics["largest"] == (1 + 4) / 2
    _, loss, _ = gradient(Regression(LINEAR, SGD, False), batch)
    assert loss == (0.5 + 3 * 8) / 2


def test_batch_loss_multiplies_by_importance_weights_and_does_not_renormalise(learner):
    batch = make(2, 2)._replace(observation=np.zeros((2, 3, 2), np.float32))
    batch = batch._replace(reward=np.float32([[2, 4], [6, 8]]))
    count = 4 if learner.per_step else 2
    assert gradient(learner, batch)[1] == (2 + 8 + 18 + 32) / count
    weighted = batch._replace(weight=np.float32([[2, 0.5], [1, 1]]))
    _, loss, metrics = gradient(learner, weighted)
    assert loss == (2 * 2 + 0.5 * 8 + 18 + 32) / count
    assert metrics["error"] == (2 + 4 + 6 + 8) / 4  # metrics describe experience, unweighted
    doubled = gradient(learner, batch._replace(weight=2 * batch.weight))[1]
    assert doubled == 2 * gradient(learner, batch)[1]


def test_batch_loss_of_padding_alone_is_zero(learner):
    batch = make()
    grads, loss, _ = gradient(learner, batch._replace(weight=0 * batch.weight))
    assert loss == 0
    np.testing.assert_array_equal(grads, 0)


def test_batch_loss_can_average_over_the_batch_axis(learner):
    assert gradient(learner, make())[2]["over_batch"] == pytest.approx(make().reward.sum() / 4)


def test_batch_loss_gives_each_trajectory_its_own_key(learner):
    one, two = (gradient(learner, make(n))[2]["draw"] for n in (1, 2))
    assert one == gradient(learner, make(1, seed=1))[2]["draw"]
    assert 2 * two - one != one  # the second trajectory's
    (_, other), _ = compute(learner, make(1), jax.random.key(1))
    assert other["draw"] != one


def test_update_is_adam_by_hand():
    learner = Regression(LINEAR, optax.adam(0.1, b1=0.8, b2=0.9, eps=1e-5))
    state = jax.jit(learner.init)(KEY)._replace(params=PARAMS)
    update = jax.jit(learner.update)
    w, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    for t in (1, 2, 3):
        batch = make(seed=t)
        state, metrics = update(state, batch, KEY)
        x, r = np.float64(batch.observation[:, :-1]), np.float64(batch.reward)
        g = -np.einsum("bt,btx->x", r - x @ w, x) / r.size
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        w = w - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-5)
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
        np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(g), rtol=1e-5)
        assert state.updates == t


def test_learn_says_how_much_of_the_batch_has_weight_0():
    learner = Regression(LINEAR, SGD)
    _, metrics = jax.jit(learner.learn)(jax.jit(learner.init)(KEY), ragged(), KEY)
    assert metrics["weight_0_fraction"] == 0.5


def test_update_keeps_what_is_extra():
    learner = Regression(LINEAR, SGD)
    state = jax.jit(learner.init)(KEY)._replace(extra={"kept": np.float32(7)})
    updated, _ = jax.jit(learner.update)(state, make(), KEY)
    assert updated.extra == state.extra
    assert jax.tree.structure(updated) == jax.tree.structure(state)


def test_init_depends_on_its_key_alone(learner):
    first, second = jax.jit(lambda key: [learner.init(key) for _ in range(2)])(KEY)
    assert first.updates == 0
    np.testing.assert_array_equal(first.params["w"], second.params["w"])


def test_init_gives_each_key_parameters_of_its_own():
    drawn = LINEAR._replace(init=lambda key: {"w": jax.random.normal(key, (2,))})
    init = jax.jit(Regression(drawn, SGD).init)
    params = [init(jax.random.key(i)).params["w"] for i in range(2)]
    assert not np.allclose(*params)


def standardised(x, weight):
    return np.asarray(jax.jit(jax.vmap(standardise, axis_name="batch"))(x, weight))


def test_standardise_is_numpys_over_the_real_steps_of_the_batch():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 5, (4, 6)).astype(np.float32)
    weight = np.arange(6) < np.array([6, 1, 3, 0])[:, None]
    real = x[weight]
    expected = (real - real.mean()) / real.std()
    x[~weight] = np.nan
    found = standardised(x, 2.0 * weight)[weight]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found.mean()) < 1e-5
    assert abs(found.std() - 1) < 1e-5


@pytest.mark.parametrize("value", [0.0, 1.0, 3.3, -1e6])
def test_standardise_of_equal_numbers_is_finite(value):
    assert np.isfinite(standardised(np.full((2, 7), value, np.float32), np.ones((2, 7)))).all()
    assert np.isfinite(standardised(np.full((1, 2), value, np.float32), np.eye(2)[:1])).all()


def test_standardise_refuses_a_batch_of_one_number():
    with pytest.raises(SettingError, match="must be 2 or more, got 1: nothing would be learned"):
        standardised(np.ones((1, 1), np.float32), np.ones((1, 1)))


@pytest.mark.parametrize("value", [3.3, 100.7])
def test_standardise_of_equal_numbers_is_zero(value):
    found = standardised(np.full((2, 7), value, np.float32), np.ones((2, 7)))
    np.testing.assert_allclose(found, 0, atol=1e-2)


@pytest.mark.parametrize("shape", [(1,), (4, 1)])
def test_batch_loss_of_another_shape_is_named(shape):
    class Wrong(Learner):
        def loss(self, params, trajectory, key, state):
            return jnp.full(shape, params["w"]), {}

    network = Network(lambda key: {"w": jnp.float32(1)}, None)
    wrong = Wrong(network, optax.sgd(0.1))
    state = jax.eval_shape(wrong.init, KEY)
    with pytest.raises(
        SettingError, match=r"loss of one trajectory must have shape \(\) or \(4,\)"
    ):
        jax.eval_shape(wrong.update, state, make(batch=3, steps=4), KEY)


@pytest.mark.parametrize("turns", [[False, False], [True, False], [True, True]])
def test_what_comes_now_and_then_is_a_condition_also_for_several_runs(turns):
    change = lambda x: jnp.sin(x)
    run = lambda turn, x: now_and_then(turn, change, x)
    several = jax.vmap(run, axis_name=MEMBERS)
    args = np.array(turns), np.float32([1, 2])
    found = jax.jit(several)(*args)
    alone = [jax.jit(run)(turn, x) for turn, x in zip(*args, strict=True)]
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_allclose(found, np.where(turns, np.sin([1, 2]), [1, 2]), rtol=1e-6)
    assert "cond[" in str(jax.make_jaxpr(several)(*args))
    assert "cond[" not in str(jax.make_jaxpr(jax.vmap(run))(*args))  # without the name of the axis
