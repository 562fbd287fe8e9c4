"""What the terms of a learner come to, one after the other."""

from collections.abc import Sequence
from typing import Any

import jax

from rlws.numerics import answers
from rlws.settings import SettingError
from rlws.terms.term import Term
from rlws.types import Array, Key, Metrics, Params, Trajectory


def named_apart(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Returns the terms; raises a SettingError where two have one name."""
    names = [term.name for term in terms]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingError(f"with_terms: names must differ, got {', '.join(twice)} twice")
    return tuple(terms)


def init(
    terms: Sequence[Term], key: Key, params: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Returns the parameters with what terms add to them, and the states of the terms.

    Raises:
      SettingError: a term's parameters have names that are there already.
    """
    states = []
    for i, term in enumerate(terms):
        entries, state = term.init(jax.random.fold_in(key, i), params)
        if clash := params.keys() & entries.keys():
            raise SettingError(f"{type(term).__name__}: parameters {clash} are there already")
        params = params | entries
        states.append(state)
    return params, tuple(states)


def prepare(
    terms: Sequence[Term], params: Params, states: Sequence[Any], batch: Trajectory
) -> tuple[Trajectory, dict[str, Any], tuple[Any, ...]]:
    """Returns a batch as the terms change it, the entries they keep themselves, and next states."""
    kept, following = dict[str, Any](), []
    for term, own in zip(terms, states, strict=True):
        who, names = f"{type(term).__name__}.prepare", ("batch", "parameters", "state")
        batch, entries, own = answers.several(who, names, term.prepare(params, own, batch))
        kept |= entries
        following.append(own)
    return batch, kept, tuple(following)


def losses(
    terms: Sequence[Term], params: Params, trajectory: Trajectory, key: Key, state: Any
) -> tuple[dict[str, Array | float], Metrics]:
    """Returns the losses of one trajectory by name, and the metrics of all terms that have one.

    `state` is the learner's; where there are no terms, anything.
    """
    found, metrics = dict[str, Any](), Metrics()
    for i, term in enumerate(terms):
        if type(term).loss is Term.loss:  # it only changes batches
            continue
        answer = term.loss(params, trajectory, jax.random.fold_in(key, i), state.terms[i])
        who = f"{type(term).__name__}.loss"
        loss, own = answers.several(who, ("what to minimise", "metrics"), answer)
        found[f"{term.name}_loss"] = loss
        metrics |= {f"{term.name}_{name}": x for name, x in own.items()}
    return found, metrics
