"""Networks that are, in part, what they were at first."""

import dataclasses

import jax

from rlws.critics import Returns
from rlws.networks.compose import Network
from rlws.settings import SettingError

PRIOR = "prior"  # the entry of parameters that never learns


def with_prior(network: Network, scale: float) -> Network:
    """Returns a network plus `scale` times another of its kind, which is drawn and never learns.

    Osband et al., 2018, "Randomized prior functions for deep reinforcement learning", equation 5.
    https://arxiv.org/abs/1806.03335

    Its parameters are those of both, `learned` and `prior`; no gradient reaches the latter.

    Raises:
      SettingError: a network has a memory, or batch normalisation. Or, when it is called, a critic
        says what is no sum.
    """
    if network.recurrent or network.learning is not None:
        raise SettingError(
            "a prior is of networks without a memory and without batch normalisation, got "
            f"{'a recurrent one' if network.recurrent else 'one with it'}; take another backbone"
        )

    def init(key):
        learned_key, prior_key = jax.random.split(key)
        return {"learned": network.init(learned_key), PRIOR: network.init(prior_key)}

    def add(said, prior):
        if not isinstance(said, Returns):
            return said + scale * prior
        if said.logits is not None or said.inner is not None:
            raise SettingError(
                "a prior is added to returns that are numbers or quantiles, got "
                f"{said.critic}; take critics.Scalar() or critics.Quantiles()"
            )
        return dataclasses.replace(said, atoms=said.atoms + scale * prior.atoms)

    def apply(params, observation, key=None):
        given = () if key is None else (key,)
        said = network.apply(params["learned"], observation, *given)
        prior = network.apply(jax.lax.stop_gradient(params[PRIOR]), observation, *given)
        return jax.tree.map(add, said, prior, is_leaf=lambda x: isinstance(x, Returns))

    return Network(init, apply, random=network.random)
