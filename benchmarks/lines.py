"""Lines of code, without comments, docstrings and blank lines: `python -m benchmarks.lines`.

Of each agent's file, and of all that a reader opens to follow PPO from the command to the gradient.
"""

import ast
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
LEARNING = ("agents_zoo/ppo.py", "rlws/learner.py")
# What the README names, and what the trainer keeps in modules of its own.
PATHS = {
    "PPO, host": (
        "experiments/cartpole_ppo.py",
        *LEARNING,
        "rlws/trainers/host.py",
        "rlws/trainers/turns.py",
        "rlws/trainers/rollout.py",
        "rlws/trainers/learning.py",
        "rlws/trainers/core.py",
    ),
    "PPO, device": (
        "experiments/cartpole_ppo_device.py",
        *LEARNING,
        "rlws/trainers/device.py",
        "rlws/trainers/program.py",
        "rlws/trainers/core.py",
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


def main() -> None:
    """Prints a table of agents, and one for each way to follow PPO."""
    count = lambda path: lines(pathlib.Path(path).read_text())
    print("| agent | lines |\n|---|---:|")
    for path in sorted((ROOT / "agents_zoo").glob("*.py")):
        if path.name != "__init__.py":
            print(f"| {path.stem} | {count(path)} |")
    for name, files in PATHS.items():
        counts = {file: count(ROOT / file) for file in files}
        print(f"\n| {name}, from command to gradient | lines |\n|---|---:|")
        print(*(f"| {file} | {n} |" for file, n in counts.items()), sep="\n")
        print(f"| together | {sum(counts.values())} |")


if __name__ == "__main__":
    main()
