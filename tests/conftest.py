"""Strict: warnings are errors, and arrays of different rank never broadcast by accident."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

FILTERS = (
    "error",
    # JAX is multithreaded, and writing a video starts ffmpeg.
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
)


def pytest_configure(config):
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)
