"""The operation of a function that gives the first NaN, or infinity, and the lines it stands in.

JAX's own `jax_debug_nans` misses some under `vmap` and `grad`, and `checkify` takes no batched
loops; this evaluates the traced function equation by equation and goes into the one at fault.
"""

import pathlib
import sysconfig
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from rlws.numerics.flat import apply_equation

_PACKAGES = ("site-packages", "dist-packages")
_LIBRARY = pathlib.Path(sysconfig.get_path("stdlib"))
_LINES = 8

Wrong = Callable[[Any], Any]  # of an array; where it is


class Place(NamedTuple):
    """Where a NaN or infinity comes from."""

    operation: str  # such as "log float32[4]"
    lines: tuple[str, ...]  # "file.py:12 in loss", the innermost first, of no package's code

    def __str__(self) -> str:
        return "\n  ".join((f"{self.operation}, in", *(self.lines or ("a package",))))


def first_nan(function: Callable, *args: Any) -> Place | None:
    """Returns where the function makes the first NaN from what is none, or None."""
    return _first(jnp.isnan, function, args)


def first_infinity(function: Callable, *args: Any) -> Place | None:
    """Returns where the function makes the first NaN or infinity from finite numbers, or None."""
    return _first(lambda x: ~jnp.isfinite(x), function, args)


def _first(wrong: Wrong, function: Callable, args: Any) -> Place | None:
    return _in_jaxpr(wrong, jax.make_jaxpr(function)(*args), jax.tree.leaves(args))


def _in_jaxpr(wrong: Wrong, closed: Any, inputs: list[Any]) -> Place | None:
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *inputs), strict=True))
    for equation in jaxpr.eqns:
        operands = [x.val if isinstance(x, Literal) else values[x] for x in equation.invars]
        outputs = apply_equation(jaxpr, equation, operands)
        if _any(wrong, outputs) and not _any(wrong, operands):
            found, here = _inside(wrong, equation, operands), _place(equation)
            # Within a package there may be no lines but those of the call.
            return found._replace(lines=found.lines or here.lines) if found else here
        values.update(zip(equation.outvars, outputs, strict=True))
    return None


def _inside(wrong: Wrong, equation: Any, operands: list[Any]) -> Place | None:
    """Returns the place within the function an equation calls, if it calls one."""
    name, params = equation.primitive.name, equation.params
    for closed, inputs in _calls(name, params, operands):
        if _any(wrong, jaxpr_as_fun(closed)(*inputs)):
            return _in_jaxpr(wrong, closed, inputs)
    return None


def _calls(name: str, params: dict[str, Any], operands: list[Any]) -> Iterator[tuple[Any, list]]:
    """Yields the functions an equation calls, and on what, one after the other."""
    if name == "cond":
        index, *inputs = operands
        yield params["branches"][int(index)], inputs
    elif name == "while":
        test, body = params["cond_nconsts"], params["body_nconsts"]
        consts, carry = operands[test : test + body], operands[test + body :]
        more = jaxpr_as_fun(params["cond_jaxpr"])
        while bool(more(*operands[:test], *carry)[0]):
            inputs = [*consts, *carry]
            yield params["body_jaxpr"], inputs
            carry = jaxpr_as_fun(params["body_jaxpr"])(*inputs)
    elif name == "scan":
        ends = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, carry, xs = (operands[: ends[0]], operands[slice(*ends)], operands[ends[1] :])
        steps = range(params["length"])
        for i in reversed(steps) if params["reverse"] else steps:
            inputs = [*consts, *carry, *(x[i] for x in xs)]
            yield params["jaxpr"], inputs
            carry = jaxpr_as_fun(params["jaxpr"])(*inputs)[: params["num_carry"]]
    else:
        for key in params.keys() & {"jaxpr", "call_jaxpr", "fun_jaxpr"}:
            inner = params[key]
            # A reduction, too, has a function: of two numbers, not of what is reduced.
            if [x.aval.shape for x in _jaxpr(inner).invars] == [*map(jnp.shape, operands)]:
                yield inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ()), operands


def _jaxpr(closed: Any) -> Any:
    return getattr(closed, "jaxpr", closed)


def _any(wrong: Wrong, values: list[Any]) -> bool:
    return any(
        bool(wrong(x).any()) for x in values if jnp.issubdtype(jnp.result_type(x), np.floating)
    )


def _place(equation: Any) -> Place:
    traceback = equation.source_info.traceback
    lines = list[str]()
    for frame in traceback.frames if traceback else []:
        path = pathlib.Path(frame.file_name)
        if path.is_file() and not _foreign(path):
            lines.append(f"{path.name}:{frame.line_num} in {frame.function_name}")
    shapes = ", ".join(str(x.aval.str_short()) for x in equation.outvars)
    return Place(f"{equation.primitive.name} {shapes}", tuple(lines[:_LINES]))


def _foreign(path: pathlib.Path) -> bool:
    return any(part in _PACKAGES for part in path.parts) or path.is_relative_to(_LIBRARY)
