"""Notebooks run from top to bottom, and what they show is something to look at."""

import ast
import json
import pathlib

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def run(path, changes):
    """Runs the code of a notebook; returns what each cell comes to, as a notebook would show it."""
    names, shown = {}, []
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for old, new in changes.items():
            source = source.replace(old, new)
        body = ast.parse(source)
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, path.name, "exec"), names)
        shown.append(last and eval(compile(ast.Expression(last.value), path.name, "eval"), names))
    return shown


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, figure, film, action, scores = run(EXAMPLES / "train.ipynb", {"100_000": "3_000"})
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert film._repr_html_().startswith("<video")
    assert action in (0, 1)
    assert len(scores) == 2
