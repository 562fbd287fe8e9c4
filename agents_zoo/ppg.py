"""PPG: phasic policy gradient, PPO whose value also teaches the policy's features, now and then.

Cobbe et al., 2021, "Phasic policy gradient". https://arxiv.org/abs/2009.04416

Policy and value have a network each. Every `phase` updates of PPO's kind, on all that was
experienced since the last time, it takes `auxiliary_epochs` passes that minimise

    mean((V_aux(s) - G)^2 / 2 + clone_cost KL(pi_old(. | s), pi(. | s)) + (V(s) - G)^2 / 2)

where V_aux is a head on the policy's features and pi_old the policy before these passes (algorithm
1 and section 2). Departures from the paper: G are the targets of when the steps were experienced,
as in the authors' code.
"""

import jax
import jax.numpy as jnp

from agents_zoo import ppo
from rlws import networks
from rlws.critics import certain, returns
from rlws.learner import now_and_then
from rlws.numerics.epochs import scan_minibatches
from rlws.settings import NonNegative, PositiveInt, SettingError


class Config(ppo.Config):
    """Settings of PPG."""

    epochs: PositiveInt = 1  # passes over a batch; the paper's
    phase: PositiveInt = 16  # updates from one auxiliary phase to the next; theirs are 32
    auxiliary_epochs: PositiveInt = 6
    auxiliary_minibatches: PositiveInt = 16  # gradient steps in each, for each update of a phase
    clone_cost: NonNegative = 1.0

    def network(self, spec):
        if self.shared:
            raise SettingError(
                "PPG: shared must be False, got True: that would be PPO; leave it out"
            )
        return networks.compose(
            spec,
            self.backbone,
            shared=(("policy", "auxiliary"), ("value",)),
            policy=networks.policy(spec, self.std),
            auxiliary=networks.ValueReturns(self.critic),
            value=networks.ValueReturns(self.critic),
        )

    def learner(self, network, optimizer):
        if network.recurrent:
            raise SettingError("PPG: backbone must have no memory, got a recurrent one; take ppo")
        return PPG(network, optimizer, self)


class PPG(ppo.PPO):
    """PPO with an auxiliary phase, over data that it keeps."""

    config: Config

    def begin(self, state, batch):
        steps = jax.vmap(self.samples, in_axes=(None, 0))(state.params, batch)
        room = lambda x: jnp.zeros((self.config.phase, *x.shape), x.dtype)
        return state._replace(extra=(state.extra, jax.tree.map(room, steps)))

    def update(self, state, batch, key):
        learned_from, kept = state.extra
        samples = jax.vmap(self.samples, in_axes=(None, 0))(state.params, batch)
        place = state.updates % self.config.phase
        kept = jax.tree.map(lambda old, new: jnp.asarray(old).at[place].set(new), kept, samples)
        key, own_key = jax.random.split(key)
        turn = place == self.config.phase - 1
        after, metrics = super().update(state._replace(extra=learned_from), batch, key)
        after = after._replace(extra=(after.extra, kept))
        return now_and_then(turn, lambda state: self.auxiliary(state, own_key), after), metrics

    def auxiliary(self, state, key):
        """Returns the state after the auxiliary phase on what it keeps."""
        config, (_, kept) = self.config, state.extra
        flat = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[3:]), kept)
        old = self.network.apply(state.params, flat.observation).policy
        samples = flat._replace(extras={**flat.extras, "old": old})
        count = len(flat.reward)
        steps = config.auxiliary_minibatches * config.phase
        if count % steps:
            raise SettingError(
                f"PPG: the {count} steps of a phase must be {steps} equal minibatches, which are "
                "auxiliary_minibatches * phase; change one of these, unroll_length or num_envs"
            )

        def step(state, minibatch, key):
            return self.step(state, minibatch, key, self.auxiliary_loss)[0], None

        after, _ = scan_minibatches(step, state, samples, key, config.auxiliary_epochs, steps)
        return after._replace(updates=state.updates)

    def auxiliary_loss(self, params, trajectory, key, state):
        outputs, extras = self.network.apply(params, trajectory.observation), trajectory.extras
        target = certain(extras["return"])
        value_loss, features_loss = (
            returns(outputs, name, self.config.critic).loss(target)
            for name in ("value", "auxiliary")
        )
        kl = extras["old"].kl(outputs.policy)
        return value_loss + features_loss + self.config.clone_cost * kl, {"clone_kl": kl}
