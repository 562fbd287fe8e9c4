"""Products on one flat axis: same values and gradients, and no transposed copies."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlws.numerics.flat import flat_products

pytestmark = pytest.mark.exact

X = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
NETWORK = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 3])(x)))
PARAMS = jax.jit(NETWORK.init)(jax.random.key(0), X[0, 0])


def whole(params, x):
    """Of each of 6 trajectories of 5 steps, one vector at a time."""
    one = lambda x: NETWORK.apply(params, x)
    found = jax.vmap(lambda xs: jax.nn.softmax(jax.vmap(one)(xs)) @ jnp.eye(3))(x)
    return {"found": found, "sum": jax.vmap(lambda xs: jax.vmap(one)(xs).sum())(x)}


def total(function):
    return lambda params: sum((leaf**2).sum() for leaf in jax.tree.leaves(function(params, X)))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_flat_products_change_nothing(wrap):
    ours, theirs = wrap(flat_products(wrap(whole)))(PARAMS, X), jax.jit(whole)(PARAMS, X)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, theirs)
    ours = jax.jit(jax.grad(total(flat_products(wrap(whole)))))(PARAMS)
    theirs = jax.jit(jax.grad(total(whole)))(PARAMS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), ours, theirs)


def test_flat_products_are_of_matrices():
    def ranks(function):
        jaxpr = jax.make_jaxpr(jax.grad(total(function)))(PARAMS).jaxpr
        products = [e for e in _all(jaxpr) if e.primitive.name == "dot_general"]
        return {x.aval.ndim for e in products for x in e.invars}

    assert ranks(flat_products(whole)) == {2}
    assert 3 in ranks(whole)  # or there is nothing to mend


def _all(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from _all(value.jaxpr)


def test_flat_products_keep_scans_conditions_and_closures():
    scale = np.arange(3, dtype=np.float32)

    def function(params, x):
        step = lambda carry, row: (carry + NETWORK.apply(params, row), carry.sum())
        final, sums = jax.vmap(lambda xs: jax.lax.scan(step, jnp.zeros(3), xs))(x)
        return jax.lax.cond(sums.sum() > 0, lambda y: y * scale, lambda y: y - scale, final)

    with jax.numpy_rank_promotion("allow"):
        ours = jax.jit(flat_products(function))(PARAMS, X)
        np.testing.assert_allclose(ours, jax.jit(function)(PARAMS, X), rtol=1e-5)


def test_flat_products_under_a_gradient_of_what_they_close_over():
    def outer(weight):
        inner = lambda x: x @ (weight * jnp.ones((4, 2)))
        return flat_products(jax.vmap(inner))(X).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(outer))(2.0), 2 * X.sum(), rtol=1e-4)


def test_flat_products_take_keys():
    keys = jax.random.split(jax.random.key(0), 6)
    draw = jax.vmap(lambda key, x: x @ jax.random.normal(key, (4, 2)))
    ours, theirs = (jax.jit(f)(keys, X) for f in (flat_products(draw), draw))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
