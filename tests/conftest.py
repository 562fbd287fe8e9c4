"""Strict: warnings are errors, and arrays of different rank never broadcast by accident."""

import haiku as hk
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


def allowing_rank_promotion(function):
    def call(*args):
        with jax.numpy_rank_promotion("allow"):
            return function(*args)

    return call


# Haiku's own code relies on it here.
Orthogonal = hk.initializers.Orthogonal
Orthogonal.__call__ = allowing_rank_promotion(Orthogonal.__call__)

FILTERS = (
    "error",
    # JAX is multithreaded, and writing a video starts ffmpeg.
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
    # rlax, of its own functions.
    r"ignore:Rlax softmax will be deprecated:PendingDeprecationWarning",
    # TensorFlow Probability, which rlax imports.
    r"ignore:jax\.core\.pytype_aval_mappings is deprecated:DeprecationWarning",
    # rlws.learner uses it; goes when that uses optax.tree.norm.
    r"ignore:optax\.global_norm is deprecated:DeprecationWarning",
)


def pytest_configure(config):
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)
