"""A network that is attacked with its dropout on, as a graph without a test mode is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from nmutant_cli.mutation.dropout import dropout_on, mix
from nmutant_cli.types import AnyArray


class Stochastic:
    """``predict_logits`` with dropout on, under a fresh mask each time an image is asked about.

    ``keys``: ``(n,)`` int32, from 0, one for each image that is attacked. The mask is a hash of
    the image's key and of how often it was asked about before, so batch mates and batch size
    change nothing. The network cannot see whose rows it is given: `about` says so, before
    each call (`batches.about`). Raises ModelError as `mutation.graph.dropout_on` does.
    """

    def __init__(self, model: keras.Model, keys: AnyArray) -> None:
        self._network = dropout_on(model)
        self._keys = np.append(keys, 0).astype(np.int32)  # the last is nobody's
        self._asked = np.zeros_like(self._keys)
        # Variables, so that one graph serves all batches.
        self._key = tf.Variable(self._keys, shape=[None], trainable=False)
        self._count = tf.Variable(self._asked, shape=[None], trainable=False)

    def about(self, images: AnyArray, times: AnyArray | int) -> None:
        """The next rows are these images, -1 for nobody's.

        ``times``: how many of the calls before the next `about` count for each image. Where images
        of one batch need different numbers of calls, the last calls count for some of them only.
        """
        self._key.assign(self._keys[images])
        self._count.assign(self._asked[images])
        np.add.at(self._asked, images, times)

    def __call__(self, x: Any) -> Any:
        key = mix(ops.bitwise_xor(self._key.read_value(), mix(self._count.read_value())))
        self._count.assign_add(tf.ones_like(self._count))
        return self._network([x, key])
