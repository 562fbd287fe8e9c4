"""Numbers by hand are the same however they are compiled, and most of the time goes into that."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _compiled_soon(request):
    """Tests that are not slow compile without optimisation; the others run for longer."""
    if request.node.get_closest_marker("slow"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
