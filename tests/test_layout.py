"""What may import what: rooms look down only, and nothing looks back."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# The rooms of rlws, which are folders, or modules at the root, from the top down; each with those
# that it imports, which all stand below it. Its README says the same.
ROOMS = {
    "__main__": "commands tracking sources",
    "commands": "tune analysis runs diagnose trainers agent tracking environments numerics "
    "settings sources",
    "tune": "analysis runs trainers tracking environments numerics settings",
    "analysis": "runs trainers tracking settings",
    "runs": "trainers normalise agent learner actor networks critics tracking environments "
    "numerics settings sources types",
    "testing": "diagnose trainers agent",
    "diagnose": "trainers stacking normalise agent learner actor critics networks tracking "
    "environments settings types",
    "trainers": "agent learner actor adders tracking environments numerics settings types",
    "stacking": "agent actor adders environments settings types",
    "normalise": "agent actor terms networks settings types",
    "agent": "learner actor adders numerics settings types",
    "learner": "terms networks numerics settings types",
    "actor": "critics networks settings types",
    "adders": "settings types",
    "terms": "networks numerics settings types",
    "networks": "critics numerics settings types",
    "critics": "numerics settings types",
    "tracking": "settings",
    "environments": "numerics settings types",
    "numerics": "settings types",
    "settings": "sources",
    "sources": "",
    "types": "",
}


def imports(root):
    """Returns what each module of rlws imports of rlws: anywhere in it, unless for types alone."""
    files = {}
    for path in (root / "rlws").rglob("*.py"):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        files[name.removesuffix(".__init__")] = path
    found = {}
    for module, path in files.items():
        names = set(_imported(ast.parse(path.read_text())))
        # `from a import b` is of the module a.b, where there is one.
        modules = {name if name in files else name.rpartition(".")[0] for name in names}
        found[module] = modules & files.keys() - {module}
    return found


def _imported(node):
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "write imports in full"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        yield from (name for child in node.orelse for name in _imported(child))
    else:
        yield from (name for child in ast.iter_child_nodes(node) for name in _imported(child))


def circle(graph):
    """Returns modules that import each other in a circle, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]


def arrows(graph):
    """Returns which room imports from which: the pairs of modules for each pair of rooms."""
    found = {}
    for module, others in graph.items():
        for other in others:
            rooms = _room(module), _room(other)
            if rooms[0] != rooms[1]:
                found.setdefault(rooms, set()).add((module, other))
    return found


def _room(module):
    return module.split(".")[1] if "." in module else module


def below(graph, module):
    """Returns all that is imported where a module is."""
    found, left = set(), [module]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found


@pytest.fixture(scope="module")
def graph():
    return imports(ROOT)


def test_no_modules_import_each_other(graph):
    assert circle(graph) is None


def test_rooms_import_from_rooms_below_them():
    names = list(ROOMS)
    for room, others in ROOMS.items():
        for other in others.split():
            assert names.index(other) > names.index(room), f"{other} is above {room}"


def test_rooms_import_what_the_table_says(graph):
    found = arrows(graph)
    table = {(room, other) for room, others in ROOMS.items() for other in others.split()}
    strangers = {pair for rooms in found.keys() - table for pair in found[rooms]}
    assert not strangers
    assert table <= found.keys(), "the table says more than there is"


def test_experiment_is_read_without_what_runs_it(graph):
    rooms = set(map(_room, below(graph, "rlws.runs.experiment")))
    assert {"agent", "trainers"} <= rooms
    assert rooms.isdisjoint({"runs", "analysis", "commands", "diagnose", "rlws"})


def test_readme_of_a_room_says_what_it_imports():
    said = {}
    for room in ROOMS:
        if (ROOT / "rlws" / room).is_dir():
            readme = (ROOT / "rlws" / room / "README.md").read_text()
            (line,) = re.findall(r"^Imports: (.*)", readme, re.MULTILINE)
            said[room] = set(re.findall(r"\w+", line))
    assert said == {room: set(ROOMS[room].split()) for room in said}


# Two modules that import each other, and what they look like to the checks.
PLANTED = "from rlws.runs import b\n", "def f():\n    from rlws.commands.a import x\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rlws.commands import a\n"


@pytest.mark.parametrize(("source", "found"), [(PLANTED[1], True), (FOR_TYPES, False)])
def test_layout_sees_what_is_imported_late_and_not_what_is_for_types(tmp_path, source, found):
    for name, text in {"commands/a.py": PLANTED[0], "runs/b.py": source}.items():
        path = tmp_path / "rlws" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    graph = imports(tmp_path)
    assert graph["rlws.commands.a"] == {"rlws.runs.b"}
    assert bool(circle(graph)) == found
    assert (("runs", "commands") in arrows(graph)) == found
