"""What to look at where a probe comes to another answer: by how far off it is, and which way."""

from typing import Any

import numpy as np

UNITS = "learning depends on the size of rewards: scale_rewards makes it independent"


def of_discounting(expected: np.ndarray, got: Any) -> str:
    """Returns advice on what was got where this was expected."""
    if got[0] > 1.1 * expected[1]:
        return (
            "what follows counts more than once: in a lambda-return, 1 - lambda of the value and "
            "lambda of the return; or values are of more than rewards, such as entropy: set its "
            "cost or temperature to 0"
        )
    if got[0] > 0.97 * expected[1]:
        return "the discount is ignored: multiply what follows by gamma"
    if got[0] < 0.5 * expected[0]:
        return (
            "what follows is not bootstrapped: the target network never moves, rewards are one "
            "step off, or the value of the next observation is missing"
        )
    return "values of earlier states are off: look at traces and the power of the discount"


def of_truncation(expected: np.ndarray, got: Any) -> str:
    """Returns advice on what was got where this was expected."""
    if np.abs(got).max() > 10 * np.abs(expected).max():
        return (
            "values grow without bound: they are of more than rewards, such as a temperature that "
            "runs away as its loss has the wrong sign, or draw themselves up"
        )
    if got.mean() > 0.5 * expected.mean() and got.mean() < expected.mean():
        gamma, found = (1 - 0.1 / x.mean() for x in (expected, got))
        return (
            f"what follows counts as if the discount were {found:.2f}, not {gamma:.2f}: look for a "
            "discount that is multiplied in twice, in n-step returns, too, or for targets that "
            "leave out part of what follows"
        )
    if got.mean() < expected.mean():
        return (
            "truncation is treated as termination: bootstrap from the last observation, let "
            "trajectory.discount, not trajectory.last, say what ends, and cut traces at episode "
            "ends with trajectory.trace()"
        )
    return "returns go on into the next episode: cut traces with trajectory.trace()"


def of_termination(expected: np.ndarray, got: Any) -> str:
    """Returns advice on what was got where this was expected."""
    if got.mean() < expected.mean():
        return (
            "rewards before an end count for too little: look at what corrections and traces take "
            "away, and of which step that is"
        )
    return (
        "values of the last step are bootstrapped: multiply what follows by trajectory.discount, "
        "and cut traces at episode ends with trajectory.trace()"
    )


def of_bandit(expected: np.ndarray, got: Any) -> str:
    """Returns advice on what was got where this was expected."""
    if got < 0.4:
        return "the worse action is preferred: look at the sign of the advantage"
    return (
        "the better action is not preferred enough: look at how far an advantage moves the policy, "
        "what it is divided by, and at gradients that reach what only weighs"
    )
