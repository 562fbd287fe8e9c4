"""What critics say of returns: by hand, against rlax, and where learning must end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlws import critics
from rlws.critics import Categorical, ImplicitQuantiles, Quantiles, Returns, Scalar, certain
from rlws.networks import MLP, ActionReturns, ValueReturns, compose, ensemble
from rlws.numerics.returns import n_step_returns
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec
from tests.networks.test_heads import KEY, SCALAR, specs

RNG = np.random.default_rng(0)
TWO = Categorical(2, 0.0, 1.0)


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("atoms", "probabilities", "expected"),
    [
        ([0.5, 1.5], [1, 0], [0.5, 0.5]),  # of 0, moved by a reward of 0.5
        ([0.25], [1], [0.75, 0.25]),
        ([-3.0, 7.0], [0.25, 0.75], [0.25, 0.75]),  # beyond the atoms: the last ones
    ],
)
def test_categorical_projection(atoms, probabilities, expected):
    target = Returns(np.float32(atoms), np.log(np.maximum(np.float32(probabilities), 1e-9)))
    np.testing.assert_allclose(jax.jit(TWO.projected)(target), expected, atol=1e-6)


def test_categorical_projection_is_that_of_rlax():
    import rlax  # takes a second, so here alone

    critic = Categorical(7, -2.0, 3.0)
    target = Returns(3 * drawn(5, 4), drawn(5, 4))
    project = lambda z, p: rlax.categorical_l2_project(z, p, jnp.linspace(-2.0, 3.0, 7))

    @jax.jit
    def both(target):
        theirs = jax.vmap(project)(target.atoms, target.probabilities())
        return critic.projected(target), theirs

    found, expected = both(target)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_quantile_loss_is_that_of_rlax(kappa):
    import rlax

    said, target = drawn(6, 5), Returns(2 * drawn(6, 3))
    levels = np.float32((np.arange(5) + 0.5) / 5)
    each = jax.vmap(rlax.quantile_regression_loss, in_axes=(0, None, 0, None))

    @jax.jit
    def both(said, target):
        theirs = each(said, levels, target.atoms, kappa)
        return critics.quantile_loss(said, levels, target, kappa), theirs

    np.testing.assert_allclose(*both(said, target), rtol=1e-5)


def test_smoothed_targets_are_a_normal_distribution_cut_into_bins():
    critic = Categorical(101, -5.0, 5.0, smoothing=2.0)  # a deviation of 0.2
    found = np.asarray(jax.jit(lambda x: critic.projected(certain(x)))(np.float32(0.33)))
    atoms = np.linspace(-5, 5, 101)
    mean = (found * atoms).sum()
    assert mean == pytest.approx(0.33, abs=1e-4)
    assert np.sqrt((found * (atoms - mean) ** 2).sum()) == pytest.approx(0.2, abs=3e-3)
    np.testing.assert_allclose(found.sum(), 1.0, atol=1e-6)


@pytest.mark.parametrize("scale", critics.SCALES)
def test_scales_are_undone(scale):
    there, back = critics.SCALES[scale]
    x = np.float32([-1e4, -3.0, -0.1, 0.0, 0.5, 20.0, 1e4])
    scaled, undone = jax.jit(lambda x: (there(x), back(there(x))))(x)
    np.testing.assert_allclose(undone, x, rtol=2e-3, atol=1e-4)
    assert (np.diff(scaled) > 0).all()


CRITICS = [
    Scalar(),
    Scalar("huber"),
    Scalar(scale="symlog"),
    Categorical(21, -4.0, 4.0),
    Quantiles(16),
    ImplicitQuantiles(16, 8),
]


def said(critic, trajectory_length=None):
    """Returns what a critic says of features, each in turn, through layers of numbers."""

    def layer(features, size):
        return jnp.asarray(RNG.normal(size=(*features.shape[:-1], size)), jnp.float32)

    import haiku as hk

    transformed = hk.transform(lambda x: critic(x, layer))
    rows = [drawn(3) for _ in range(trajectory_length)]

    @jax.jit
    def every(key):
        outputs = [transformed.apply(transformed.init(key, rows[0]), None, row) for row in rows]
        return jax.tree.map(lambda *x: jnp.stack(x), *outputs)

    return every(KEY)


@pytest.mark.parametrize("critic", CRITICS, ids=lambda critic: type(critic).__name__)
def test_means_of_n_steps_are_n_steps_of_means(critic):
    reward, discount = drawn(6), np.float32([0.9, 0.9, 0.0, 0.9, 0.9, 0.9])
    trace = np.float32([1, 1, 0, 1, 0, 1])  # it ends after the third, is cut after the fifth
    following = said(critic, 6)
    both = jax.jit(
        lambda following: (
            following.after(reward, discount, 3, trace).mean(),
            n_step_returns(reward, discount, following.mean(), 3, trace),
        )
    )
    np.testing.assert_allclose(*both(following), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("critic", CRITICS, ids=lambda critic: type(critic).__name__)
def test_what_is_done_with_atoms_is_done_with_their_means(critic):
    weights = np.float32([0.1, 0.2, 0.3, 0.4])

    @jax.jit
    def done(several):
        one, lowest, moved = several.take(jnp.int32(2)), several.lowest(), several.moved(2.0, 0.5)
        mixed = several.mixed(weights)
        means = [x.mean() for x in (several, one, lowest, moved, mixed)]
        return means, mixed.probabilities().sum(), several.deviation(), mixed.deviation()

    several = said(critic, 4)  # of four actions
    (mean, one, lowest, moved, mixed), whole, deviation, of_mixed = jax.device_get(done(several))
    np.testing.assert_allclose(one, mean[2], rtol=1e-5)
    np.testing.assert_allclose(lowest, mean.min(), rtol=1e-5)
    np.testing.assert_allclose(moved, 2.0 + 0.5 * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed, weights @ mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole, 1.0, rtol=1e-5)
    expected = np.sqrt(weights @ (np.square(deviation) + np.square(mean)) - np.square(mixed))
    np.testing.assert_allclose(of_mixed, expected, rtol=1e-3, atol=1e-4)


def test_the_highest_atoms_of_all_are_dropped():
    two = Returns(np.float32([[1, 8, 3], [5, 2, 9]]))
    np.testing.assert_array_equal(jax.jit(two.without_top, static_argnums=0)(1).atoms, [1, 2, 3, 5])


def learned(critic, targets, steps=600, rate=0.1):
    """Returns what a critic says in the end of targets that are drawn, one a step."""
    spec = EnvironmentSpec(specs.Array((1,), np.float32), specs.DiscreteArray(2), SCALAR, SCALAR)
    network = compose(spec, MLP((16,)), value=ValueReturns(critic))
    optimizer = optax.adam(optax.linear_schedule(rate, 0.0, steps))

    def step(carry, inputs):
        params, state = carry
        key, targets = inputs

        def loss(params):
            outputs = network(params, jnp.ones((len(targets), 1)), key)
            return outputs.value_returns.loss(certain(targets)).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    draws = np.float32(RNG.choice(targets, (steps, 64)))

    @jax.jit
    def run(key):
        params, inputs = network.init(key), (jax.random.split(key, steps), draws)
        params = jax.lax.scan(step, (params, optimizer.init(params)), inputs)[0][0]
        found = network.apply(params, np.ones(1, np.float32)).value_returns
        return found, found.mean(), found.probabilities()

    return run(KEY)


@pytest.mark.parametrize(
    "critic",
    [
        Scalar(),
        Categorical(17, -4.0, 4.0),
        Quantiles(20, kappa=0.0),
        ImplicitQuantiles(20, 8, kappa=0.01),
    ],
    ids=lambda critic: type(critic).__name__,
)
def test_the_fixed_point_is_the_distribution_of_what_is_returned(critic):
    """-1 half of the time, 0 or 3 a quarter each."""
    found, mean, probabilities = jax.device_get(learned(critic, [-1, -1, 0, 3]))
    assert mean == pytest.approx(0.25, abs=0.15)
    if isinstance(critic, Scalar):
        return
    atoms = found.atoms
    for low, high, expected in ((-1.6, -0.4, 0.5), (-0.4, 0.6, 0.25), (2.4, 3.6, 0.25)):
        share = probabilities[(atoms > low) & (atoms < high)].sum()
        assert share == pytest.approx(expected, abs=0.08)


def test_a_network_says_the_mean_and_all_of_it():
    spec = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(4), SCALAR, SCALAR)
    heads = [ActionReturns(4, critic, duelling) for critic in CRITICS for duelling in (False, True)]
    for head in heads:
        network = compose(spec, MLP((8,)), q=head)
        say = lambda x, n=network: n.apply(n.init(KEY), x)
        outputs = jax.eval_shape(say, drawn(2, 5, 3))
        assert outputs.q.shape == outputs.q_returns.atoms.shape[:-1] == (2, 5, 4)
        assert network.random == isinstance(head.critic, ImplicitQuantiles)


def test_an_ensemble_keeps_atoms_last():
    spec = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(4), SCALAR, SCALAR)
    network = ensemble(compose(spec, MLP((8,)), value=ValueReturns(Quantiles(7))), 3)

    @jax.jit
    def say(key, x):
        outputs = network.apply(network.init(key), x)
        return outputs, outputs.value_returns.mean()

    outputs, mean = say(KEY, drawn(5, 3))
    assert outputs.value.shape == (5, 3)
    assert outputs.value_returns.atoms.shape == (5, 3, 7)
    np.testing.assert_allclose(outputs.value, mean, rtol=1e-6)


def test_atoms_must_go_up():
    with pytest.raises(SettingError, match=r"low must be below high, got 1\.0 and 1\.0"):
        Categorical(5, 1.0, 1.0)
