"""Strict: warnings are errors, and arrays of different rank never broadcast by accident."""

import os
import pathlib

# Most of the time goes into compiling, and many tests compile the same. Set here, before JAX is
# imported, it holds for processes that tests start, too. A folder for each worker: one might read
# what another still writes.
ROOT = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / os.getenv("PYTEST_XDIST_WORKER", "main"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import jax
import pytest

from rlws.numerics import memo

jax.config.update("jax_numpy_rank_promotion", "raise")

FILTERS = (
    "error",
    # rlax, of its own functions.
    r"ignore:Rlax softmax will be deprecated:PendingDeprecationWarning",
    # TensorFlow Probability, which rlax imports.
    r"ignore:jax\.core\.pytype_aval_mappings is deprecated:DeprecationWarning",
    # Box2D; raised while it is imported, it ends the process.
    r"ignore:builtin type:DeprecationWarning",
)


def pytest_configure(config):
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True, scope="module")
def _programs_are_forgotten():
    """Compiled programs of one module are of no use to the next, and they add up to gigabytes."""
    yield
    memo.forget()
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _patched_code_is_compiled_anew(request):
    """What was made before a test changes code must not be what it tests, nor what it made stay."""
    if "monkeypatch" not in request.fixturenames:
        yield
        return
    memo.forget()
    yield
    memo.forget()
