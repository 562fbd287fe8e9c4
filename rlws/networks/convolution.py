"""Convolutions, on a CPU as products of matrices."""

import haiku as hk
import jax
import jax.numpy as jnp

from rlws.types import Array


class Convolution(hk.Module):
    """A convolution of one image [height, width, channels] by a square kernel, without padding.

    Parameters are those of `hk.Conv2D`: `w` [size, size, channels, filters] and `b` [filters].
    """

    def __init__(self, filters: int, size: int, stride: int, w_init: hk.initializers.Initializer):
        super().__init__("conv2_d")
        self._shape, self._stride, self._w_init = (size, size), stride, w_init
        self._filters = filters

    def __call__(self, image: Array) -> Array:
        """Returns [(height - size) // stride + 1, likewise of width, filters]."""
        kernel = (*self._shape, image.shape[-1], self._filters)
        w = hk.get_parameter("w", kernel, init=self._w_init)
        b = hk.get_parameter("b", (self._filters,), init=jnp.zeros)
        return convolved(image, w, self._stride) + b[None, None]


def convolved(image: Array, kernel: Array, stride: int = 1) -> Array:
    """Returns what a kernel [k, k, c, n] makes of an image [h, w, c] at each `stride`-th place.

    XLA's convolutions for CPUs are fast, but not within a loop, which a learner that takes several
    steps is, as is whatever a trainer on the device does: there, this is fast.
    """
    return (by_patches if jax.default_backend() == "cpu" else by_xla)(image, kernel, stride)


def by_xla(image: Array, kernel: Array, stride: int) -> Array:
    """Returns the same by XLA's own convolution."""
    how = jax.lax.conv_dimension_numbers((1, *image.shape), kernel.shape, ("NHWC", "HWIO", "NHWC"))
    strides = stride, stride
    return jax.lax.conv_general_dilated(image[None], kernel, strides, "VALID", None, None, how)[0]


def by_patches(image: Array, kernel: Array, stride: int) -> Array:
    """Returns the same by one product, of all that the kernel sees with the kernel."""
    size, *_, filters = kernel.shape
    height, width = ((n - size) // stride + 1 for n in image.shape[:2])
    if stride > 1 and size % stride == 0:
        # Blocks of stride x stride pixels are pixels of more channels, under a smaller kernel: so
        # there are fewer places to take from the image.
        count = size // stride
        rows, columns = height + count - 1, width + count - 1
        image = image[: rows * stride, : columns * stride]
        image = _blocks(image, rows, columns)
        kernel = _blocks(kernel.reshape(size, size, -1), count, count)
        kernel = kernel.reshape(count, count, -1, filters)
        return by_patches(image, kernel, 1)
    ends = stride * (height - 1) + 1, stride * (width - 1) + 1
    places = [(i, j) for i in range(size) for j in range(size)]
    seen = [image[i : i + ends[0] : stride, j : j + ends[1] : stride] for i, j in places]
    return jnp.concatenate(seen, axis=-1) @ kernel.reshape(-1, filters)


def _blocks(image: Array, rows: int, columns: int) -> Array:
    """Returns an image in so many blocks, whose pixels are channels."""
    height, width, channels = image.shape
    split = image.reshape(rows, height // rows, columns, width // columns, channels)
    return split.swapaxes(1, 2).reshape(rows, columns, -1)
