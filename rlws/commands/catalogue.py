"""What there is, by name, with a line on each; read from the source, without importing it."""

import ast
import contextlib
import functools
import importlib.util
import pathlib
import re
from collections.abc import Iterator
from typing import Any

Names = dict[str, str]  # to a description of one line, which may be empty


def modules(package: str) -> Names:
    """Returns the modules of a package with the first lines of their docstrings."""
    return {
        path.stem: first_sentence(ast.get_docstring(_parsed(path)))
        for path in sorted(_folder(package).glob("*.py"))
        if not path.stem.startswith("_")
    }


def environments() -> Names:
    """Returns the known environments, of each the newest version."""
    from rlws.environments import available  # asks the packages that are installed
    from rlws.environments.names import newest_versions

    found: dict[str, Any] = {}
    with contextlib.suppress(ImportError):
        import gymnasium

        for identity, spec in gymnasium.registry.items():
            found[f"gym:{identity}"] = _class_docstring(str(spec.entry_point))
    for name, text in _gymnax_docstrings():
        found[f"gymnax:{name}"] = text
    for path in _folder("dm_control.suite").glob("*.py"):
        for function in _functions(path):
            found[f"dm:{path.stem}-{function.name}"] = ast.get_docstring(function)
    for path in _folder("rlws.environments").glob("*.py"):
        for node in _classes(path):
            found[f"jax:{node.name}"] = ast.get_docstring(node)
    return {
        name: first_sentence(found.get(name) or found.get(re.sub(r"-v\d+$", "", name)))
        for name in newest_versions(available())
    }


def first_sentence(docstring: str | None) -> str:
    """Returns the first sentence of a docstring, without headings and markup, as one line."""
    lines = [line for line in (docstring or "").splitlines() if not line.lstrip().startswith("#")]
    paragraph = " ".join("\n".join(lines).strip().partition("\n\n")[0].split())
    paragraph = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", paragraph)
    # Not after the initial of a name.
    return re.split(r"(?<=[^A-Z][.!?])\s(?=[A-Z])", paragraph, maxsplit=1)[0].rstrip(".")


def _folder(package: str) -> pathlib.Path:
    """Returns the folder of a package; one that is not there if there is none."""
    root, *rest = package.split(".")
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(root)
        for place in (spec and spec.submodule_search_locations) or []:
            return pathlib.Path(place, *rest)
    return pathlib.Path(package, "is not installed")


@functools.cache
def _parsed(path: pathlib.Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return ast.Module([], [])


def _classes(path: pathlib.Path) -> list[ast.ClassDef]:
    return [node for node in _parsed(path).body if isinstance(node, ast.ClassDef)]


def _functions(path: pathlib.Path) -> list[ast.FunctionDef]:
    return [node for node in _parsed(path).body if isinstance(node, ast.FunctionDef)]


def _class_docstring(entry_point: str) -> str | None:
    """Returns the docstring of the class in "package.module:Class", which may be imported there."""
    module, _, name = entry_point.partition(":")
    place = _folder(module)
    for path in [place.with_suffix(".py"), *sorted(place.glob("*.py"))]:
        for node in _classes(path):
            if node.name == name:
                return ast.get_docstring(node)
    return None


def _gymnax_docstrings() -> Iterator[tuple[str, str | None]]:
    """Yields what gymnax's classes return as their `name`, with their docstrings."""
    for path in _folder("gymnax.environments").rglob("*.py"):
        for node in _classes(path):
            names = [
                inner.value.value
                for method in node.body
                if isinstance(method, ast.FunctionDef) and method.name == "name"
                for inner in ast.walk(method)
                if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Constant)
            ]
            for name in names:
                yield str(name), ast.get_docstring(node)
