"""One Ray for all tests of a process; a run would begin its own, which takes seconds."""

import os
import uuid
import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def ray():
    module = pytest.importorskip("ray")
    # All its processes inherit it: tests that run beside us have a Ray of their own.
    os.environ["RLWS_TEST_RAY"] = uuid.uuid4().hex
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.init("local", num_cpus=8, include_dashboard=False, logging_level="error")
    yield module
    module.shutdown()
