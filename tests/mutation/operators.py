"""Bugs by rule: what can be mistaken in the source of any agent, one place at a time."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

SWAPPED = {
    **{"minimum": "maximum", "min": "max", "argmin": "argmax"},
    **{"mean": "sum"},
}
SWAPPED |= {new: old for old, new in SWAPPED.items()}
FACTORS = ("discount", "weight", "mask", "gamma")


class Mutant(NamedTuple):
    """A source with one mistake."""

    operator: str
    line: int
    owner: str  # the class it is in, "" if in none
    before: str
    after: str
    source: str  # of the whole file


def mutants(source: str) -> list[Mutant]:
    """Returns every mistake that the operators make in the methods and functions of a file.

    Not in those that only make an agent of its settings: these are of the framework's parts.
    """
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for owner, names, node in _inside(ast.parse(source)):
        for operator, new in _mistakes(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = source.encode()
            before = text[begin:end].decode()
            # In brackets, as what stands around it may bind closer; not where there are some.
            after = ast.unparse(new) if isinstance(node, ast.Slice) else f"({ast.unparse(new)})"
            whole = (text[:begin] + after.encode() + text[end:]).decode()
            if "state.extra" in after and not ("state" in names and "state.extra" in source):
                continue  # there are no target parameters, or none in reach
            if ast.unparse(node) != ast.unparse(new):
                found.append(Mutant(operator, node.lineno, owner, before, after, whole))
    return found


def _inside(tree: ast.Module) -> Iterator[tuple[str, set[str], ast.expr]]:
    """Yields the expressions of functions and methods, with their classes, and all arguments."""
    for top in tree.body:
        methods = top.body if isinstance(top, ast.ClassDef) else [top]
        for method in methods:
            if isinstance(method, ast.FunctionDef) and method.name != "make":
                names = {x.arg for x in ast.walk(method) if isinstance(x, ast.arg)}
                for statement in method.body:
                    owner = top.name if isinstance(top, ast.ClassDef) else ""
                    nodes = (x for x in ast.walk(statement) if hasattr(x, "end_col_offset"))
                    yield from ((owner, names, x) for x in nodes if isinstance(x, ast.expr))


def _mistakes(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Call(func=ast.Attribute(attr="stop_gradient"), args=[value]):
            yield "stop_gradient dropped", value
        case ast.UnaryOp(op=ast.USub(), operand=value) if not isinstance(value, ast.Constant):
            yield "sign", value
        case ast.BinOp(left, ast.Add(), right):
            yield "sign", ast.BinOp(left, ast.Sub(), right)
        case ast.BinOp(left, ast.Sub(), right):
            yield "sign", ast.BinOp(left, ast.Add(), right)
        case ast.BinOp(left, ast.Mult(), right):
            for factor, rest in ((left, right), (right, left)):
                if any(name in ast.unparse(factor) for name in FACTORS):
                    yield "factor dropped", rest
        case ast.Subscript(value, ast.Slice() as part):
            for old, new in (("1:", ":-1"), (":-1", "1:")):
                if ast.unparse(part) == old:
                    yield "index", _expression(f"x[{new}]", value)
        case ast.Subscript(value, ast.Tuple() as part):
            for old, new in (("(:, None)", "None, :"), ("(None, :)", ":, None")):
                if ast.unparse(part) == old or f"({ast.unparse(part)})" == old:
                    yield "axes", _expression(f"x[{new}]", value)
        case ast.Attribute(value, attr) if attr in SWAPPED:
            yield f"{attr} for {SWAPPED[attr]}", ast.Attribute(value, SWAPPED[attr])
        case ast.Call(func, args, keywords):
            for i, argument in enumerate(args):
                swap = {"state.extra": "params", "params": "state.extra"}
                if other := swap.get(ast.unparse(argument)):
                    changed = [*args[:i], ast.parse(other, mode="eval").body, *args[i + 1 :]]
                    yield "online and target", ast.Call(func, changed, keywords)
            axes = [i for i, x in enumerate(keywords) if ast.unparse(x) in ("axis=-1", "axis=1")]
            for i in axes:
                zero = ast.keyword("axis", ast.Constant(0))
                yield "axes", ast.Call(func, args, [*keywords[:i], zero, *keywords[i + 1 :]])


def _expression(text: str, value: ast.expr) -> ast.expr:
    """Returns an expression with `value` for its x."""
    tree = ast.parse(text, mode="eval").body
    assert isinstance(tree, ast.Subscript)
    return ast.Subscript(value, tree.slice)
