"""The peers' virtual environments: made once, kept in the user's cache folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import venv

# Together these were seen to work, on Python 3.11; all run the same JAX.
PINS = {
    "sb3": ("torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium==1.4.0"),
    "sbx": ("torch==2.13.0", "sbx-rl==0.28.0", "gymnasium==1.4.0", "jax==0.10.2", "flax==0.12.8"),
    # Its steps have five values, gymnax 1's have six.
    "rejax": ("rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2", "flax==0.12.8", "optax==0.2.8"),
}
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


class NotInstalledError(Exception):
    """A peer's packages could not be installed."""


def interpreter(name: str) -> str:
    """Returns the Python that runs a contestant; makes its environment if need be.

    Raises:
      NotInstalledError: says where pip's output is.
    """
    if name not in PINS:
        return sys.executable
    folder = cache() / name
    python, stamp, pins = folder / "bin" / "python", folder / "pins", " ".join(PINS[name])
    if not (stamp.is_file() and stamp.read_text() == pins and python.exists()):
        print(f"{name}: making {folder} (once, some minutes at most)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _install(name, python, folder / "log")
        stamp.write_text(pins)  # last: whatever was interrupted is begun anew
    return str(python)


def cache() -> pathlib.Path:
    """Returns the folder of the environments."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "rlws" / "peers"


def _install(name: str, python: pathlib.Path, log: pathlib.Path) -> None:
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    with open(log, "w") as output:
        run = lambda *args: subprocess.run([*pip, *args], stdout=output, stderr=output).returncode
        if PINS[name][0].startswith("torch"):
            print(f"{name}: {PINS[name][0]}, without CUDA if it is to be had", flush=True)
            # Alone: the packages it needs come from where all others do.
            quick = ("--timeout", "10", "--retries", "0")
            run("--no-deps", "--index-url", CPU_TORCH, *quick, PINS[name][0])
        print(f"{name}: {' '.join(PINS[name])}", flush=True)
        if run(*PINS[name]):
            raise NotInstalledError(f"pip could not install {' '.join(PINS[name])}: see {log}")
