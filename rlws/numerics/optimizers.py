"""Optimisers made of optax's, as agents share them."""

import optax


def clipped_adam(
    learning_rate: float, max_gradient_norm: float, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Returns Adam on gradients clipped by their global norm.

    It works on all parameters as one vector: for a small network on a CPU, where each operation on
    each array has a price, that takes a third off an update.
    """
    adam = optax.adam(learning_rate, eps=eps)
    return optax.flatten(optax.chain(optax.clip_by_global_norm(max_gradient_norm), adam))
