"""Errors that come while programs are compiled say where they are from, and how to step there."""

import dataclasses

import jax.numpy as jnp
import pytest

from agents_zoo import a2c
from rlws.networks import MLP
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.tracebacks import place_of


class Misshapen(a2c.A2C):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss @ jnp.ones(3), metrics


class Config(a2c.Config):
    def make(self, spec):
        agent = super().make(spec)
        learner = agent.learner
        return dataclasses.replace(
            agent, learner=Misshapen(learner.network, learner.optimizer, self)
        )


def error_of(trainer):
    with pytest.raises(TypeError, match="contracting") as found:
        list(trainer.train(Config(MLP((4,)), unroll_length=4), "jax:Catch", steps=8))
    return found.value


@pytest.mark.parametrize("trainer", [HostTrainer(), DeviceTrainer()])
def test_an_error_says_where_it_is_from_and_how_to_step_there(trainer):
    error = error_of(trainer)
    place = f"at {place_of(error)}, while an update was compiled"
    notes = [note for note in error.__notes__ if note.startswith(place)]
    assert len(notes) == 1
    assert "--trainer.no-jit" in notes[0]
    assert place_of(error).startswith("trainers/test_tracebacks.py:")
    assert place_of(error).endswith(" loss")


@pytest.mark.slow
def test_who_steps_through_it_is_not_told_to():
    assert not any("no-jit" in note for note in error_of(HostTrainer(jit=False)).__notes__)


def test_an_error_of_a_library_alone_is_where_it_was_raised():
    with pytest.raises(ValueError, match="could not convert") as found:
        float("x")
    assert place_of(found.value).startswith("trainers/test_tracebacks.py:")
    assert place_of(ValueError("never raised")) == "?"
