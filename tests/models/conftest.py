"""An encoder that is built in no time, for the tests of what stands on an encoder."""

import keras
import pytest

from microseg.models.encoders import CAFFE, ENCODERS, END, Encoder


@pytest.fixture
def small_encoder(monkeypatch):
    """Add the row ``small`` to the encoders: five levels of four channels at strides 2 to 32."""

    def build(**_):
        x = inputs = keras.Input((None, None, 3))
        for level in range(5):
            x = keras.layers.Conv2D(4, 3, 2, padding="same", activation="elu", name=f"level_{level}")(x)
        return keras.Model(inputs, x)

    levels = (*(f"level_{level}" for level in range(4)), END)
    monkeypatch.setitem(ENCODERS, "small", Encoder(build, levels, 2, CAFFE))
