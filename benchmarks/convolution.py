"""Convolutions on a CPU, XLA's and by patches: `python -m benchmarks.convolution`.

Gradient steps on a batch of pictures, one by one and several in a loop of one program, as learners
take them and as trainers on the device act: there XLA's convolutions are slow.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import alternate, report
from rlws.networks.convolution import by_patches, by_xla

STEPS, ROUNDS = 8, 7
# Shape of a batch; kernels and strides.
WORK = {
    "MinAtar's network": ((1024, 10, 10, 4), [((3, 3, 4, 16), 1)]),
    "DQN's network of pictures": (
        (32, 84, 84, 4),
        [((8, 8, 4, 32), 4), ((4, 4, 32, 64), 2), ((3, 3, 64, 64), 1)],
    ),
}


def contestants(shape, layers):
    """Returns segments of gradient steps, by name."""
    rng = np.random.default_rng(0)
    images = rng.random(shape, np.float32)
    kernels = [rng.normal(0, 0.05, size).astype(np.float32) for size, _ in layers]
    found = {}

    def loss(kernels, convolved):
        def features(image):
            for kernel, (_, stride) in zip(kernels, layers, strict=True):
                image = jax.nn.relu(convolved(image, kernel, stride))
            return image

        return jnp.square(jax.vmap(features)(images)).mean()

    def step(convolved, kernels):
        gradients = jax.grad(loss)(kernels, convolved)
        return jax.tree.map(lambda x, g: x - 1e-3 * g, kernels, gradients)

    def loop(convolved, kernels):
        again = lambda kernels, _: (step(convolved, kernels), None)
        return jax.lax.scan(again, kernels, length=STEPS)[0]

    for name, convolved in (("XLA", by_xla), ("patches", by_patches)):
        for where, function, count in (("one by one", step, STEPS), ("in a loop", loop, 1)):
            program = jax.jit(functools.partial(function, convolved))
            found[f"{name}, {where}"] = functools.partial(_run, program, kernels, count)
    return found


def _run(program, kernels, count):
    jax.block_until_ready([program(kernels) for _ in range(count)])
    return STEPS


def main() -> None:
    """Prints the time of a gradient step each way."""
    for title, (shape, layers) in WORK.items():
        times = alternate(contestants(shape, layers), ROUNDS)
        report(f"{title}, a batch of {shape[0]}", times, "XLA, in a loop")


if __name__ == "__main__":
    main()
