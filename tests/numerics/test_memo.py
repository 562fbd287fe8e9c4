"""What is remembered, and what must not be."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import dqn, reinforce
from rlws import networks
from rlws.environments import CartPole, Catch
from rlws.numerics import memo
from rlws.settings import Settings

SMALL = networks.MLP((4,))
SPEC = CartPole().spec()


class Choice(Settings):
    what: object


@pytest.mark.parametrize(
    "config",
    [reinforce.Config(SMALL), dqn.Config(networks.GRU(size=4), sequence_length=2, burn_in=1)],
    ids=["reinforce", "gru"],
)
def test_equal_settings_make_one_agent_and_others_another(config):
    made = config.make(SPEC)
    assert type(config)(**vars(config)).make(CartPole().spec()) is made
    assert config.make(Catch().spec()) is not made
    assert config.make(SPEC._replace(max_episode_steps=7)) is not made
    assert type(config)(**vars(config) | {"discount": 0.5}).make(SPEC) is not made


def test_a_variant_is_made_by_its_own_make():
    class Variant(reinforce.Config):
        def make(self, spec):
            return dataclasses.replace(super().make(spec), evaluator=None)

    assert Variant(SMALL).make(SPEC).evaluator is None
    assert reinforce.Config(SMALL).make(SPEC).evaluator is not None
    assert Variant(SMALL).make(SPEC) is Variant(SMALL).make(SPEC)


def test_tracers_are_not_kept():
    def returned(rate):
        # Traced by its setting, and traced by what goes on around it.
        traced = reinforce.Config(SMALL, learning_rate=rate).make(SPEC)
        plain = dqn.Config(networks.GRU(size=3), sequence_length=2, burn_in=1).make(SPEC)
        seen.append((traced, plain))
        return rate

    seen = []
    jax.jit(returned)(0.1)
    after = dqn.Config(networks.GRU(size=3), sequence_length=2, burn_in=1).make(SPEC)
    assert after is not seen[0][1]
    leaves = jax.tree.leaves(after.actor.initial_state())
    assert leaves
    assert not any(isinstance(x, jax.core.Tracer) for x in leaves)


@pytest.mark.parametrize(
    "what",
    [np.zeros(2), jnp.zeros(2), [1], {1}, object(), (1, [2]), {"a": [3]}],
    ids=lambda x: type(x).__name__,
)
def test_what_may_change_is_made_again(what):
    make = memo.Remembered(lambda x: object())
    assert make(Choice(what)) is not make(Choice(what))
    assert make(what) is not make(what)


def test_numbers_of_different_kinds_are_told_apart():
    make = memo.Remembered(lambda x: object())
    ones = [make(x) for x in (1, 1.0, True, np.int32(1), np.float32(1), (1,), Choice(1))]
    assert len(set(ones)) == len(ones)
    assert ones == [make(x) for x in (1, 1.0, True, np.int32(1), np.float32(1), (1,), Choice(1))]


def test_few_are_kept_those_used_last():
    calls = []
    make = memo.Remembered(lambda x: calls.append(x))
    for i in range(memo.SIZE):
        make(i)
    make(0)
    make(memo.SIZE)  # for which 1 has to go
    make(0)
    assert calls == [*range(memo.SIZE + 1)]
    make(1)
    assert calls[-1] == 1


def test_what_does_not_matter_is_not_compared():
    make = memo.Remembered(lambda x, y: object(), by=lambda x, y: (id(x),))
    one = object()
    assert make(one, [1]) is make(one, [2])
    assert make(object(), [1]) is not make(one, [1])


def test_nothing_is_shared_where_code_may_change(monkeypatch):
    monkeypatch.setattr(memo, "_sharing", False)
    assert reinforce.Config(SMALL).make(SPEC) is not reinforce.Config(SMALL).make(SPEC)


def test_what_was_made_does_not_travel_with_the_function():
    make = memo.Remembered(jnp.zeros)
    make(2)
    assert make.made
    assert not pickle.loads(pickle.dumps(make)).made


def test_arguments_are_known_however_they_are_given():
    make = memo.Remembered(lambda x, y=1: object())
    assert make(2) is make(2, 1) is make(y=1, x=2) is not make(2, 2)


def test_a_dict_among_settings_is_no_key():
    make = memo.Remembered(lambda x: object())
    assert make(Choice({"a": 1})) is not make(Choice({"a": 1}))


def test_sharing_for_a_while_is_forgotten(monkeypatch):
    monkeypatch.setattr(memo, "_sharing", False)
    make = lambda: reinforce.Config(SMALL).make(SPEC)
    with memo.sharing():
        made = make()
        assert make() is made
    assert make() is not make()
    with memo.sharing():
        assert make() is not made
