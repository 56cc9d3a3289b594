"""What a loaded network must be, and what is added to make it so."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose

from microseg.config import Component, TrialConfig
from microseg.errors import MicrosegError
from microseg.importing.network import Network, one_output, tile_of, with_maps_of, with_probabilities

FILE = Path("old.h5")


def network(maps=1, size=None, channels=1, activation=None):
    keras.utils.set_random_seed(3)
    image = keras.Input((size, size, channels))
    scores = layers.Conv2D(
        maps,
        1,
        kernel_initializer=keras.initializers.RandomNormal(0, 3),
        bias_initializer=keras.initializers.Constant(-2),
    )(image)
    return keras.Model(image, layers.Activation(activation)(scores) if activation else scores)


def wrapped(model, tile=16):
    config = TrialConfig(model=Component(name="imported"), tile=tile)
    return Network(FILE, model, config)


def noisy(channels=1):
    return np.random.default_rng(0).random((16, 16, channels), np.float32)


def saved(model, folder):
    """Return a network as a stranger loads it."""
    model.save(folder / "it.keras")
    return keras.saving.load_model(folder / "it.keras", compile=False, safe_mode=True)


@pytest.mark.parametrize(("maps", "kind"), [(1, "sigmoid"), (3, "softmax")])
def test_logits_become_probabilities_once(maps, kind, tmp_path):
    raw = network(maps)
    done = with_probabilities(wrapped(raw), [noisy()])
    expected = getattr(keras.ops, kind)(raw(noisy()[None]))
    assert_allclose(saved(done.model, tmp_path)(noisy()[None]), expected, atol=1e-6)
    assert kind in done.notes[0] and "logits" in done.notes[0]
    assert with_probabilities(done, [noisy()]) is done


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_probabilities_stay_as_they_are(activation):
    given = wrapped(network(3, activation=activation))
    assert with_probabilities(given, [noisy()]) is given


def test_an_answer_that_is_no_number_is_refused():
    model = network()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(MicrosegError, match=r"old\.h5: it answers NaN or infinite values"):
        with_probabilities(wrapped(model), [noisy()])


def test_of_background_and_foreground_the_second_map_is_kept(tmp_path):
    model = network(2, activation="softmax")
    done = with_maps_of(wrapped(model), ("foreground",))
    answer = saved(done.model, tmp_path)(noisy()[None])
    assert_allclose(answer, np.asarray(model(noisy()[None]))[..., 1:])
    assert with_maps_of(wrapped(model), ("background", "cell")).model is model


@pytest.mark.parametrize(("maps", "classes"), [(3, ("foreground",)), (1, ("background", "cell"))])
def test_other_numbers_of_maps_than_classes_are_refused(maps, classes):
    with pytest.raises(MicrosegError, match=rf"it gives {maps} map\(s\), the data has {len(classes)} class"):
        with_maps_of(wrapped(network(maps)), classes)


def test_several_outputs_need_a_choice():
    image = keras.Input((None, None, 1))
    outputs = [layers.Conv2D(1, 1, name=name)(image) for name in ("coarse", "fine")]
    model = keras.Model(image, outputs)
    with pytest.raises(MicrosegError, match="it has 2 outputs; choose by --output: coarse, fine"):
        one_output(model, "", FILE)
    with pytest.raises(MicrosegError, match="no output 'fin'; did you mean 'fine'"):
        one_output(model, "fin", FILE)
    chosen = one_output(model, "fine", FILE)
    assert_allclose(chosen(noisy()[None]), model(noisy()[None])[1])


def test_only_an_image_to_maps_channels_last_is_taken():
    flat = keras.Input((7,))
    with pytest.raises(MicrosegError, match=r"shapes \(None, 7\), \(None, 7\); only networks from one image"):
        one_output(keras.Model(flat, layers.Dense(7)(flat)), "", FILE)
    pair = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    with pytest.raises(MicrosegError, match="only networks from one image"):
        one_output(keras.Model(pair, layers.Add()(pair)), "", FILE)


def test_the_tile_is_the_networks_own_or_the_one_asked_for():
    assert tile_of(network(size=48), None, FILE) == 48
    assert tile_of(network(size=48), 48, FILE) == 48
    assert tile_of(network(), None, FILE) == 256
    assert tile_of(network(), 64, FILE) == 64
    with pytest.raises(MicrosegError, match="tile is 64 pixels, but the network takes only 48"):
        tile_of(network(size=48), 64, FILE)


def test_a_network_that_cannot_take_the_tile_or_changes_the_size_is_refused():
    image = keras.Input((None, None, 1))
    down = layers.UpSampling2D()(layers.MaxPooling2D()(image))
    joined = keras.Model(image, layers.Concatenate()([image, down]))
    assert tile_of(joined, 64, FILE) == 64
    with pytest.raises(MicrosegError, match="cannot take tiles of 33 pixels; give --tile a multiple"):
        tile_of(joined, 33, FILE)
    valid = keras.Model(image, layers.Conv2D(1, 3)(image))
    with pytest.raises(
        MicrosegError, match="tiles of 64 pixels give maps of 62 x 62; only networks that keep"
    ):
        tile_of(valid, 64, FILE)
    wide = keras.Input((32, 48, 1))
    with pytest.raises(MicrosegError, match="images of 32 x 48 pixels; only square ones can be tiled"):
        tile_of(keras.Model(wide, layers.Conv2D(1, 1)(wide)), None, FILE)
