"""Matrix products of a vmapped function, on one flat leading axis.

A network that sees T observations of each of B trajectories multiplies [B, T, k] by [k, n]. XLA:CPU
computes the gradient of that by copying a transpose of every activation; of the same product on
[B * T, k] it does not, and the gradient takes half the time.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def flat_products(function: Callable) -> Callable:
    """Returns the same function; what it computes, and its gradients, stay the same to rounding."""

    def flat(*args):
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # for the lines of `function`
            return function(*args)
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return flat


def _evaluate(closed: Any, inputs: list[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *inputs), strict=True))
    read = lambda x: x.val if isinstance(x, Literal) else values[x]
    for equation in jaxpr.eqns:
        operands = [read(x) for x in equation.invars]
        if equation.primitive.name in ("pjit", "jit"):
            outputs = _evaluate(equation.params["jaxpr"], operands)
        elif equation.primitive.name == "dot_general" and _flattens(equation):
            outputs = [_flat_product(equation, *operands)]
        else:
            outputs = apply_equation(jaxpr, equation, operands)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars]


def apply_equation(jaxpr: Any, equation: Any, operands: list[Any]) -> list[Any]:
    """Returns the outputs of one equation of a jaxpr."""
    inputs = {
        x: y for x, y in zip(equation.invars, operands, strict=True) if not isinstance(x, Literal)
    }
    alone = jaxpr.replace(
        constvars=[],
        invars=list(inputs),
        outvars=equation.outvars,
        eqns=[equation],
        effects=equation.effects,
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*inputs.values())


def _flattens(equation: Any) -> bool:
    """Returns whether it is the product of the last axis of many with a matrix."""
    x, matrix = (operand.aval for operand in equation.invars)
    (contracted, _), batch = equation.params["dimension_numbers"]
    last = tuple(contracted) == (x.ndim - 1,)
    return last and not any(map(len, batch)) and x.ndim > 2 and matrix.ndim == 2


def _flat_product(equation: Any, x: Any, matrix: Any) -> Any:
    (_, contracted), batch = equation.params["dimension_numbers"]
    params = {**equation.params, "dimension_numbers": (((1,), contracted), batch)}
    shape = equation.outvars[0].aval.shape
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return equation.primitive.bind(flat, matrix, **params).reshape(shape)
