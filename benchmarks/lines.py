"""Lines of code, without comments, docstrings and blank lines: `python -m benchmarks.lines`.

Of each agent's file; of all that a reader opens to follow a run from the command to the gradient,
modules that the trainers are made of included; and of the framework by folder.
"""

import ast
import collections
import io
import pathlib
import tokenize

from benchmarks.peers.contestant import ROOT

SILENT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)
TRAINERS = "rlws/trainers"
# How environments are stepped, rows kept in memory, errors named and reports made is left out: it
# is said in a line what they do. What acts, adds and learns, and when, is not.
PATHS = {
    "REINFORCE, host": (
        "experiments/cartpole_reinforce.py",
        "agents_zoo/reinforce.py",
        "rlws/learner.py",
        *(f"{TRAINERS}/{name}.py" for name in ("host", "rollout", "learning", "core")),
    ),
    "PPO, device": (
        "experiments/cartpole_ppo_device.py",
        "agents_zoo/ppo.py",
        "rlws/learner.py",
        *(f"{TRAINERS}/{name}.py" for name in ("device", "program", "core")),
    ),
    "DQN, host, row by row": (
        "experiments/cartpole_dqn.py",
        "agents_zoo/dqn.py",
        "rlws/learner.py",
        *(f"{TRAINERS}/{name}.py" for name in ("host", "row_by_row", "learning", "core")),
    ),
}


def lines(source: str) -> int:
    """Returns how many lines of a module hold code."""
    code = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        # A string that stands by itself says something to readers only.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text, end = node.value.value, node.end_lineno or node.lineno
            code.difference_update(range(node.lineno, end + 1) if isinstance(text, str) else ())
    return len(code)


def count(path: pathlib.Path) -> int:
    """Returns how many lines of a file hold code."""
    return lines(path.read_text())


def table(title: str, counts: dict[str, int]) -> None:
    """Prints counts, and what they come to."""
    print(f"\n| {title} | lines |\n|---|---:|")
    print(*(f"| {name} | {n} |" for name, n in counts.items()), sep="\n")
    print(f"| together | {sum(counts.values())} |")


def main() -> None:
    """Prints a table of agents, one for each way to follow a run, and one of the framework."""
    agents = sorted((ROOT / "agents_zoo").glob("[!_]*.py"))
    table("agent", {path.stem: count(path) for path in agents})
    for name, files in PATHS.items():
        table(f"{name}, from command to gradient", {file: count(ROOT / file) for file in files})
    folders = collections.Counter[str]()
    for path in sorted((ROOT / "rlws").rglob("*.py")):
        folders[f"{path.parent.relative_to(ROOT)}/"] += count(path)
    table("folder", folders)


if __name__ == "__main__":
    main()
