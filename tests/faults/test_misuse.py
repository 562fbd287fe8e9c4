"""Calls in an order nobody should make: an outcome, or an error that names what is wrong."""

import dataclasses
import threading

import dm_env
import jax
import numpy as np
import pytest
from faulty import experiment

import rlws
from rlws import environments
from rlws.runs import launch
from rlws.settings import SettingError
from rlws.trainers import HostTrainer

RUN = dataclasses.replace(experiment, steps=300, quiet=True)
COUNTERS = ("steps", "episodes", "updates", "evaluation_return_mean")


@pytest.mark.slow
def test_runs_of_two_threads_are_two_runs_and_a_third_in_their_folder_is_refused(tmp_path):
    found = {}

    def run(name, folder):
        try:
            summary = launch.run(dataclasses.replace(RUN, directory=str(tmp_path / folder)))
            found[name] = tuple(summary[counter] for counter in COUNTERS)
        except SettingError as error:
            found[name] = error

    run("alone", "alone")
    threads = [threading.Thread(target=run, args=who, daemon=True) for who in ("aa", "bb", "ca")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    refused = [found.pop(name) for name in "ac" if isinstance(found[name], SettingError)]
    assert len(refused) == 1
    assert str(tmp_path / "a") in str(refused[0])
    assert len(set(found.values())) == 1


def test_what_was_reported_before_is_not_mistaken_for_what_is_now():
    reports = HostTrainer().train(RUN.agent, RUN.environment, steps=300, report_period=50)
    _, old, _ = next(reports), next(reports), next(reports)
    with pytest.raises(RuntimeError, match="deleted"):  # the trainer updates it in place
        jax.device_get(old.params)
    reports.close()
    with pytest.raises(StopIteration):
        next(reports)


@pytest.mark.slow
def test_a_loaded_policy_names_what_it_cannot_act_on(tmp_path):
    launch.run(
        dataclasses.replace(RUN, environment="gym:CartPole-v1", directory=str(tmp_path / "run"))
    )
    act = rlws.load(tmp_path / "run")
    assert act(np.zeros(4, np.float32)) in (0, 1)
    for wrong in (np.zeros(3), np.zeros((2, 4)), "left"):
        with pytest.raises(SettingError, match=r"an observation must be float32\[4\]"):
            act(wrong)
    with pytest.raises(SettingError, match="must be the folder of a run"):
        rlws.load(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["gym:CartPole-v1", "jax:CartPole-v1"])
def test_a_step_before_any_reset_is_a_reset(name):
    environment = environments.make(name)
    if not isinstance(environment, dm_env.Environment):
        environment = environments.to_dm_env(environment, 0, 0)
    assert environment.step(1).first()
    environment.close()
    environment.close()
