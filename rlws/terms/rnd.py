"""Random network distillation: an intrinsic reward for what is new.

Burda et al., 2019, "Exploration by random network distillation". https://arxiv.org/abs/1810.12894
"""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from rlws import networks
from rlws.networks import MLP, Backbone
from rlws.settings import NonNegative
from rlws.terms.moments import Moments
from rlws.terms.term import Term
from rlws.types import Array, EnvironmentSpec

PREDICTOR = "rnd_predictor"


class RND(Term):
    """Adds scale * |predictor(o) - target(o)|^2 / deviation of that to the reward that leads to o.

    The target is a random network that never changes; the predictor learns it from what was seen.
    Departures from the paper: one value function for both rewards, and intrinsic rewards are
    divided by their own running deviation, not that of their returns. Where observations have
    different sizes, normalise them first (`normalise_observations`).
    """

    name = "rnd"

    spec: EnvironmentSpec
    scale: NonNegative = 0.1  # of the intrinsic reward
    backbone: Backbone = MLP((64, 64), "relu")  # of both networks, under a linear layer

    def init(self, key, params):
        predictor, target = map(self._network().init, jax.random.split(key))
        return {PREDICTOR: predictor}, (target, Moments.of(()))

    def prepare(self, params, state, batch):
        target, moments = state
        following = jax.tree.map(lambda x: x[:, 1:], batch.observation)
        novelty = self._error(params, target, following)
        moments = moments.update(novelty.ravel(), batch.weight.ravel())
        real = batch.weight > 0  # elsewhere the batch stays blank
        bonus = jnp.where(real, self.scale * novelty / moments.deviation(), 0.0)
        return batch._replace(reward=batch.reward + bonus), {}, (target, moments)

    def loss(self, params, trajectory, key, state):
        steps = len(trajectory.reward)
        acted_on = jax.tree.map(lambda x: x[:steps], trajectory.observation)
        error = self._error(params, state[0], acted_on)
        return error, {"novelty": error}

    def _error(self, params: Any, target: Any, observation: Any) -> Any:
        apply = self._network().apply
        wanted = jax.lax.stop_gradient(apply(target, observation).features)
        return jnp.mean((apply(params[PREDICTOR], observation).features - wanted) ** 2, axis=-1)

    def _network(self):
        return networks.compose(self.spec, self.backbone, features=_linear)


def _linear(features: Array) -> Array:
    # Of a unit that is never active no error could be learned away.
    return hk.Linear(features.shape[-1])(features)
