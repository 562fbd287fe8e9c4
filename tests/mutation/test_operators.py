"""Bugs by rule: each operator makes its mistake where it should, and nowhere else."""

import pytest

from tests.mutation.operators import mutants

SOURCE = """
class Config:
    def make(self, spec):
        return -spec.size

class Mine:
    def loss(self, params, trajectory, key, state):
        target = jax.lax.stop_gradient(state.extra)
        return {}
"""


@pytest.mark.parametrize(
    ("before", "operator", "after"),
    [
        ("jax.lax.stop_gradient(q)", "stop_gradient dropped", "(q)"),
        ("-q", "sign", "(q)"),
        ("q - p * q", "sign", "(q + p * q)"),
        ("discount * q", "factor dropped", "(q)"),
        ("q[1:]", "index", "(q[:-1])"),
        ("q[:-1]", "index", "(q[1:])"),
        ("q[:, None]", "axes", "(q[None, :])"),
        ("f(q, axis=-1)", "axes", "(f(q, axis=0))"),
        ("jnp.minimum", "minimum for maximum", "(jnp.maximum)"),
        ("q.sum", "sum for mean", "(q.mean)"),
        ("net(params, q)", "online and target", "(net(state.extra, q))"),
        ("net(state.extra, q)", "online and target", "(net(params, q))"),
    ],
)
def test_an_operator_makes_its_mistake(before, operator, after):
    source = SOURCE.format(before)
    found = [m for m in mutants(source) if m.before == before]
    assert [(m.operator, m.after, m.owner) for m in found] == [(operator, after, "Mine")]
    assert found[0].source == source.replace(before, after)


def test_what_only_makes_an_agent_is_left_alone():
    assert [m.operator for m in mutants(SOURCE.format("q"))] == ["stop_gradient dropped"]


def test_without_target_parameters_there_is_nothing_to_exchange():
    source = SOURCE.format("net(params)").replace("state.extra", "q")
    assert {m.operator for m in mutants(source)} == {"stop_gradient dropped"}


def test_where_there_is_no_state_its_target_parameters_are_not_asked_for():
    source = SOURCE.format("net(params)") + "\n\ndef mean(net, params):\n    return net(params)\n"
    assert [m.owner for m in mutants(source) if m.operator == "online and target"] == ["Mine"]
