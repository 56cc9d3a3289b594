"""A network in training: a loss for every supervised head, and an encoder that trains along later."""

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.training.network import Unfreeze, accumulating, supervise, unfreezing, views


def squared(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2)


def heads(count=2, maps=2):
    """A network of some supervised heads that predicts their mean."""
    inputs = keras.Input((None, None, 1))
    outputs = [keras.layers.Conv2D(maps, 1, activation="softmax")(inputs) for _ in range(count)]
    return keras.Model(inputs, [keras.layers.Average()(outputs), *outputs])


def test_training_sees_the_heads_behind_the_prediction_and_inference_only_the_prediction():
    model = heads()
    image = np.random.default_rng(0).random((1, 4, 4, 1), np.float32)
    training, inference = views(model)
    prediction, first, second = (np.asarray(output) for output in model(image))
    np.testing.assert_array_equal(training(image), np.concatenate([prediction, first, second], axis=-1))
    np.testing.assert_array_equal(inference(image), prediction)
    assert {id(weight) for weight in training.weights} == {id(weight) for weight in inference.weights}


def test_a_network_without_heads_is_its_own_view():
    model = keras.Model(*(lambda x: (x, keras.layers.Conv2D(1, 1)(x)))(keras.Input((None, None, 1))))
    assert views(model) == (model, model)


def test_the_loss_is_the_mean_over_the_heads_and_not_of_the_prediction():
    y_true = np.zeros((1, 2, 2, 2), np.float32)
    planes = [np.full((1, 2, 2, 2), value, np.float32) for value in (100.0, 1.0, 3.0)]
    loss = supervise(squared, maps=2)(y_true, keras.ops.convert_to_tensor(np.concatenate(planes, axis=-1)))
    assert float(loss) == pytest.approx((1.0 + 9.0) / 2)
    assert float(supervise(squared, maps=2)(y_true, keras.ops.convert_to_tensor(planes[2]))) == 9.0


def with_frozen_encoder():
    inner = keras.Input((None, None, 1))
    encoder = keras.Model(inner, keras.layers.Conv2D(2, 1)(inner), name="encoder")
    encoder.trainable = False
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1)(encoder(inputs)))
    model.compile(keras.optimizers.Adam(0.1), squared, jit_compile=False)
    return model, encoder


class Watch(keras.callbacks.Callback):
    """Keeps the encoder's kernel after every epoch."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.kernels = encoder, []

    def on_epoch_end(self, epoch, logs=None):
        self.kernels.append(self.encoder.get_weights()[0])


def test_a_frozen_encoder_trains_along_after_its_epochs_and_the_moments_survive():
    model, encoder = with_frozen_encoder()
    watch, start = Watch(encoder), encoder.get_weights()[0]
    x = np.random.default_rng(0).random((8, 4, 4, 1), np.float32)
    model.fit(x, 3 * x, batch_size=2, epochs=4, verbose=0, callbacks=[Unfreeze(model, 2), watch])
    assert np.array_equal(watch.kernels[1], start)
    assert not np.array_equal(watch.kernels[2], start)
    assert int(model.optimizer.iterations) == 16  # one optimizer from the first step to the last


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1, amsgrad=True, global_clipnorm=0.5),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1, clipvalue=0.1),
        lambda: keras.optimizers.SGD(0.1, 0.9, nesterov=True),
    ],
)
def test_parts_of_a_batch_change_the_weights_as_the_whole_does(make):
    """Once per batch, by the mean: moments, their bias correction, decay and clipping too."""
    x = np.random.default_rng(0).random((24, 4, 4, 1), np.float32)
    trained = []
    for parts in (1, 4):
        inputs = keras.Input((4, 4, 1))
        model = keras.Model(inputs, keras.layers.Conv2D(1, 3, kernel_initializer="ones")(inputs))
        model.compile(accumulating(make(), parts), "mse", jit_compile=False)
        model.fit(x, 3 * x[:, 1:-1, 1:-1], batch_size=8 // parts, epochs=3, verbose=0, shuffle=False)
        assert int(model.optimizer.iterations) == 9
        trained.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
    np.testing.assert_allclose(trained[1], trained[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("freeze", [False, True, "true"])
def test_an_encoder_that_is_always_or_never_frozen_stays_so(freeze):
    model, _ = with_frozen_encoder()
    assert unfreezing(model, Component(name="encoder_unet", params={"freeze": freeze})) == []
    assert unfreezing(model, Component(name="unet")) == []
    (later,) = unfreezing(model, Component(name="encoder_unet", params={"freeze": 3}))
    assert later.epochs == 3
