"""The quicker gradient by the images, beside TensorFlow's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nmutant_cli.networks import gradients
from nmutant_cli.networks.architectures import NETWORKS


def logits_and_gradient(model, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model(x)
        loss = tf.reduce_sum(logits[:, 0] * logits[:, 1] - logits[:, 2])
    return np.asarray(logits), np.asarray(tape.gradient(loss, x))


def alike(model, rng, n=3):
    x = rng.random((n, *model.input_shape[1:]), dtype=np.float32)
    (logits, expected), (same, found) = (
        logits_and_gradient(network, x) for network in (model, gradients.quick(model))
    )
    np.testing.assert_array_equal(same, logits)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 2), (5, 5), (7, 8)])
@pytest.mark.parametrize("shape", [(7, 8, 1), (9, 12, 3)])
def test_a_strided_convolution(shape, kernel, stride, padding):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(5, kernel, stride, padding, activation="relu", bias_initializer="normal"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    assert gradients.quick(model) is not model
    alike(model, np.random.default_rng(0))


def test_the_networks():
    rng = np.random.default_rng(0)
    for shape in ((28, 28, 1), (31, 29, 3)):
        alike(NETWORKS["mnist"](shape, 10, None), rng)
    replaced = [
        type(layer) is gradients.Convolution
        for layer in gradients.quick(NETWORKS["mnist"]((28, 28, 1), 10, None)).layers
    ]
    assert replaced == [True, False, True, False, False]


def test_a_network_that_is_no_chain():
    keras.utils.set_random_seed(1)
    images = keras.Input((12, 12, 2))
    half = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)
    both = layers.Concatenate()([half(images), half(1 - images)])  # one layer, used twice
    model = keras.Model(images, layers.Dense(3)(layers.GlobalMaxPooling2D()(both)))
    alike(model, np.random.default_rng(0))


def test_what_is_not_slow_stays_as_it_is():
    other = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3), layers.Flatten()])
    assert gradients.quick(other) is other

    class OfItsOwn(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(3, 3, strides=2)

        def call(self, x):
            return self.conv(x)

    own = OfItsOwn()
    own(np.zeros((1, 8, 8, 1), np.float32))
    assert gradients.quick(own) is own
    assert gradients.quick(np.tanh) is np.tanh


def test_it_has_the_weights_that_the_network_has_now():
    model = NETWORKS["mnist"]((28, 28, 1), 10, None)
    quick = gradients.quick(model)
    x = np.ones((2, 28, 28, 1), np.float32)
    before = np.asarray(quick(x))
    model.set_weights([0.5 * w for w in model.get_weights()])
    assert gradients.quick(model) is quick
    np.testing.assert_array_equal(np.asarray(quick(x)), np.asarray(model(x)))
    assert not np.array_equal(np.asarray(quick(x)), before)


def test_the_network_to_train_has_the_same_gradients_by_its_weights():
    model = NETWORKS["mnist"]((28, 28, 1), 10, None)
    model.set_weights([w + 0.01 for w in model.get_weights()])  # biases that count
    other = gradients.to_train(model)
    replaced = [type(layer) is gradients.Matrix for layer in other.layers]
    assert replaced == [False, False, True, False, False]
    x = np.random.default_rng(0).random((5, 28, 28, 1), dtype=np.float32)
    found = []
    for network in (model, other):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x, training=True)[:, :3] ** 2)
        found.append(tape.gradient(loss, [v.value for v in model.trainable_variables]))
    assert [v.path for v in other.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]
    for one, same in zip(*found, strict=True):
        np.testing.assert_allclose(same, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_a_network_without_such_a_layer_is_trained_as_it_is():
    model = NETWORKS["cifar10_basic"]((32, 32, 3), 10, None)
    assert gradients.to_train(model) is model


def test_the_gradient_of_every_logit():
    model = NETWORKS["mnist"]((28, 28, 1), 10, None)
    x = np.random.default_rng(0).random((27, 28, 28, 1), dtype=np.float32)
    logits, slopes = gradients.by_pixel(model, x)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        out = model(inputs)
    expected = tape.batch_jacobian(out, inputs).numpy()
    np.testing.assert_allclose(logits, out.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slopes, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
