"""PPO as many write it: an episode cut by a time limit counts as ended. To see what that costs."""

import dataclasses

from agents_zoo import ppo
from rlws.agent import Agent


class Config(ppo.Config):
    """Settings of PPO."""

    def make(self, spec) -> Agent:
        agent = super().make(spec)
        fields = dataclasses.fields(agent.learner)
        same = {field.name: getattr(agent.learner, field.name) for field in fields}
        return dataclasses.replace(agent, learner=TruncationEnds(**same))


class TruncationEnds(ppo.PPO):
    """PPO whose values of a last observation never count."""

    def samples(self, params, trajectory):
        ended = trajectory.discount * (1.0 - trajectory.last)
        return super().samples(params, trajectory._replace(discount=ended))
