"""The operation at fault is named with its own line, however deep it lies."""

import contextlib
import pathlib

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlws.numerics.nans import first_infinity, first_nan

pytestmark = pytest.mark.exact

X = jnp.array([1.0, 2.0, 3.0])
LINES = pathlib.Path(__file__).read_text().splitlines()


def line(mark):
    """Returns which line of this file ends in a comment."""
    (found,) = [i for i, text in enumerate(LINES, 1) if text.endswith(f"  # {mark}")]
    return f"{pathlib.Path(__file__).name}:{found} in "


def log_of_negative(x):
    y = x + 1
    z = jnp.log(-y)  # log
    return z * 2


def zero_by_zero(x):
    y = x - x
    return (y + 1).sum() + (y / y).sum()  # 0/0


def only_in_the_gradient(x):
    def loss(x):
        distance = jnp.sqrt(jnp.sum((x - x) ** 2))  # sqrt
        return distance + jnp.sum(x)

    value, gradient = jax.value_and_grad(loss)(x)
    return jnp.isfinite(value), gradient


def in_a_scan(x):
    def body(carry, x):
        carry = carry - x
        return carry, jnp.sqrt(carry)  # scan

    return jax.lax.scan(body, 3.5, x)


def in_a_reversed_scan(x):
    def body(carry, x):
        return x, jnp.sqrt(x - carry + 0.5)  # reversed scan

    return jax.lax.scan(body, 1.0, x, reverse=True)  # forwards there would be none


def in_a_branch(x):
    other = lambda x: x * 2
    taken = lambda x: jnp.arccos(x + 1)  # cond
    return jax.lax.cond(x.sum() > 0, taken, other, x)


def in_a_loop(x):
    def body(carry):
        i, x = carry
        return i + 1, jnp.log(x - 0.5)  # while

    return jax.lax.while_loop(lambda carry: carry[0] < 4, body, (0, x))


def in_all_of_them(x):
    def turn(carry, x):
        taken = lambda x: jax.jit(lambda x: jnp.log(x - 2.5))(x)  # nested
        return carry, jax.lax.cond(x > 1.5, taken, lambda x: x, x)

    return jax.vmap(lambda x: jax.lax.scan(turn, 0.0, x)[1])(jnp.stack([x + 1, x]))


def rematerialised(x):
    def loss(x):
        return jnp.log(x - 5).sum()  # checkpoint

    return jax.value_and_grad(jax.checkpoint(loss))(x)


def with_a_gradient_of_its_own(x):
    @jax.custom_vjp
    def one(x):
        return x

    def backwards(residual, cotangent):
        return (cotangent * jnp.sqrt(residual - 9),)

    one.defvjp(lambda x: (x, x), backwards)
    # JAX knows the line of what it is the gradient of, and no other.
    return jax.grad(lambda x: one(x).sum())(x)  # custom gradient


def in_a_haiku_network(x):
    def network(x):
        return jnp.log(-jax.nn.softplus(hk.Linear(2)(x)))  # haiku

    network = hk.without_apply_rng(hk.transform(network))
    params = network.init(jax.random.key(0), x)
    return network.apply(params, x)


CASES = [
    (log_of_negative, "log float32[3]", "log"),
    (zero_by_zero, "div float32[3]", "0/0"),
    (only_in_the_gradient, "mul float32[3]", "sqrt"),
    (in_a_scan, "sqrt float32[]", "scan"),
    (in_a_reversed_scan, "sqrt float32[]", "reversed scan"),
    (in_a_branch, "acos float32[3]", "cond"),
    (in_a_loop, "log float32[3]", "while"),
    (in_all_of_them, "log float32[2]", "nested"),
    (rematerialised, "log float32[3]", "checkpoint"),
    (with_a_gradient_of_its_own, "sqrt float32[3]", "custom gradient"),
    (in_a_haiku_network, "log float32[2]", "haiku"),
]


@pytest.mark.parametrize(("function", "operation", "mark"), CASES, ids=[mark for *_, mark in CASES])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_first_nan_is_found_with_its_line(function, operation, mark, transform):
    assert any(bool(jnp.isnan(x).any()) for x in jax.tree.leaves(function(X)))
    found = first_nan(transform(function), X)
    assert found.operation == operation
    assert found.lines[0].startswith(line(mark))
    assert all(text.startswith("test_nans.py:") for text in found.lines)


def test_lines_lead_from_the_operation_outwards():
    found = first_nan(lambda x: log_of_negative(x - 1), X)
    here = "test_lines_lead_from_the_operation_outwards.<locals>.<lambda>"
    assert len(found.lines) == 2
    assert found.lines[0].endswith("in log_of_negative")
    assert found.lines[1].endswith(f"in {here}")
    assert str(found) == f"log float32[3], in\n  {found.lines[0]}\n  {found.lines[1]}"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x / 0,  # infinite, but a number
        lambda x: jnp.where(x > 0, x, jnp.nan),  # a NaN that was put there, and is not used
        lambda x: jax.random.normal(jax.random.key(0), x.shape) + jnp.argmax(x),
        lambda x: jnp.sum(x * jnp.array([1.0, np.nan, 1.0])),  # not made, but given
    ],
)
def test_no_place_where_no_nan_is_made(function):
    assert first_nan(function, X) is None


def test_lines_are_of_no_library():
    @contextlib.contextmanager
    def around():
        yield

    found = first_nan(around()(log_of_negative), X)  # contextlib calls it
    assert [text.partition(":")[0] for text in found.lines] == ["test_nans.py"]


def test_nan_of_an_argument_is_not_blamed_on_who_passes_it_on():
    found = first_nan(lambda x, y: (x * 2, jnp.log(-y)), X.at[1].set(jnp.nan), X)  # argument
    assert found.operation == "log float32[3]"
    assert found.lines[0].startswith(line("argument"))


def test_first_infinity_is_where_the_trouble_begins():
    nan, infinity = (
        find(only_in_the_gradient, X).operation for find in (first_nan, first_infinity)
    )
    assert (nan, infinity) == ("mul float32[3]", "div float32[]")
    overflow = lambda x: jnp.tanh(jnp.exp(100 * x))  # overflow
    assert first_nan(overflow, X) is None
    found = first_infinity(overflow, X)
    assert found.operation == "exp float32[3]"
    assert found.lines[0].startswith(line("overflow"))
    assert first_infinity(jnp.tanh, X) is None


def test_functions_of_reductions_are_not_gone_into():
    reduced = lambda x: jax.lax.reduce(x - 1, np.float32(0), lambda a, b: a / b, (0,))  # reduce
    found = first_nan(reduced, X)
    assert found.operation == "reduce float32[]"
    assert found.lines[0].startswith(line("reduce"))
