"""What there is, by name, with a line on each; read from the source, without importing it."""

import ast
import contextlib
import functools
import importlib.util
import pathlib
import re

Names = dict[str, str]  # to a description of one line, which may be empty


def modules(package: str) -> Names:
    """Returns the modules of a package with the first lines of their docstrings."""
    return {
        path.stem: first_sentence(ast.get_docstring(_parsed(path)))
        for path in sorted(_folder(package).glob("*.py"))
        if not path.stem.startswith("_")
    }


def environments() -> Names:
    """Returns the known environments, of each the newest version, of bsuite's ids the first."""
    from rlws.environments import available  # asks the packages that are installed
    from rlws.environments.names import newest_versions

    found: dict[str, str | None] = {}
    with contextlib.suppress(ImportError):
        import gymnasium

        for identity, spec in gymnasium.registry.items():
            module, _, name = str(spec.entry_point).partition(":")
            found[f"gym:{identity}"] = _docstrings(module).get(name)
    for path in _folder("gymnax.environments").rglob("*.py"):
        for node in _definitions(path):
            # Its classes say under which name they are known.
            if told := re.search(r"def name\(self\).*?return '(.*?)'", ast.unparse(node), re.S):
                found[f"gymnax:{told[1]}"] = ast.get_docstring(node)
    for path in _folder("dm_control.suite").glob("*.py"):
        for node in _definitions(path):
            found[f"dm:{path.stem}-{node.name}"] = ast.get_docstring(node)
    for name, text in _docstrings("rlws.environments").items():
        found[f"jax:{name}"] = text
    return {
        name: first_sentence(found.get(name) or found.get(re.sub(r"-v\d+$", "", name)))
        for name in newest_versions(available())
        if not re.search(r"/[1-9]\d*$", name)
    }


def first_sentence(docstring: str | None) -> str:
    """Returns the first sentence of a docstring, without headings and markup, as one line."""
    lines = [line for line in (docstring or "").splitlines() if not line.lstrip().startswith("#")]
    paragraph = " ".join("\n".join(lines).strip().partition("\n\n")[0].split())
    paragraph = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", paragraph)
    # Not after the initial of a name.
    return re.split(r"(?<=[^A-Z][.!?])\s(?=[A-Z])", paragraph, maxsplit=1)[0].rstrip(".")


@functools.cache
def _docstrings(module: str) -> dict[str, str | None]:
    """Returns the docstrings of what a module or the modules of a package define, by name."""
    place = _folder(module)
    paths = [*sorted(place.glob("*.py")), place.with_suffix(".py")]
    return {node.name: ast.get_docstring(node) for path in paths for node in _definitions(path)}


def _definitions(path: pathlib.Path) -> list[ast.ClassDef | ast.FunctionDef]:
    """Returns the classes and functions of a file."""
    return [node for node in _parsed(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


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
