"""An entropy bonus for agents with a stochastic policy."""

from typing import Any

import jax.numpy as jnp

from rlws.networks import Network
from rlws.settings import NonNegative, SettingError
from rlws.terms.term import Term


class Entropy(Term):
    """-cost * entropy of the `policy` head in each state acted in.

    Williams and Peng, 1991, "Function optimization using connectionist reinforcement learning
    algorithms". Of a policy whose entropy has no closed form, a sample estimates it.
    """

    name = "entropy"

    network: Network  # the agent's, with a head named `policy`
    cost: NonNegative = 0.01
    part: str | None = None  # which entry of the parameters is the network's, where not all are

    def loss(self, params, trajectory, key, state):
        params = params if self.part is None else params[self.part]
        outputs = self.network.unroll(params, trajectory)
        policy: Any = getattr(outputs, "policy", None)
        if hasattr(policy, "entropy"):
            entropy = policy.entropy()
        elif hasattr(policy, "sample_and_log_prob"):
            entropy = -policy.sample_and_log_prob(key)[1]
        else:
            raise SettingError(
                f"Entropy: the network must have a stochastic policy head, got {outputs._fields}; "
                "leave this term out"
            )
        entropy = entropy[: len(trajectory.reward)]
        return -self.cost * entropy, {"mean": jnp.asarray(entropy)}
