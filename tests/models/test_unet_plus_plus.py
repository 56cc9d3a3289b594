"""U-Net++: the network as published, its heads, and what pruning keeps."""

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import build_model, stride
from microseg.models.unet_plus_plus import prune

# Zhou et al. as the nuclei project built it: one convolution per nested node, activated before normalised,
# the four heads averaged without a loss of their own.
NUCLEI = {
    "depth": 5,
    "filters": 64,
    "nested_convolutions": 1,
    "activation_first": True,
    "deep_supervision": False,
}


def component(**params):
    return Component(name="unet_plus_plus", params={"depth": 4, "filters": 2, **params})


def build(**params):
    return build_model(component(**params), 1, 1)


def outputs(model, side=16):
    batch = np.random.default_rng(0).random((2, side, side, 1), np.float32)
    return [np.asarray(output) for output in keras.tree.flatten(model(batch, training=False))]


def test_published_network_has_the_published_number_of_parameters():
    assert build_model(component(**NUCLEI), 3, 1).count_params() == 32_050_244


def test_prediction_is_the_average_of_the_heads():
    prediction, *heads = outputs(build())
    assert len(heads) == 3
    np.testing.assert_allclose(prediction, np.mean(heads, axis=0), rtol=1e-6)
    assert np.ptp(heads, axis=0).max() > 0.0


def test_without_deep_supervision_the_average_is_the_only_output():
    supervised, single = build(), build(deep_supervision=False)
    single.set_weights(supervised.get_weights())
    (prediction,) = outputs(single)
    np.testing.assert_array_equal(prediction, outputs(supervised)[0])


def test_pruned_network_gives_exactly_its_head():
    model = build()
    heads = outputs(model)
    for head in (1, 2, 3):
        (prediction,) = outputs(prune(model, head))
        np.testing.assert_array_equal(prediction, heads[head])


def test_fewer_parameters_the_earlier_the_head():
    model = build()
    counts = [prune(model, head).count_params() for head in (1, 2, 3)]
    assert counts == sorted(set(counts))
    assert counts[-1] < model.count_params()  # by the other heads
    assert counts[0] == build(depth=2, deep_supervision=False).count_params()


def test_network_loaded_from_a_file_can_be_pruned_and_saved_smaller(tmp_path):
    model = build(deep_supervision=False)
    model.save(tmp_path / "accurate.keras")
    loaded = keras.saving.load_model(tmp_path / "accurate.keras", compile=False)
    prune(loaded, 1).save(tmp_path / "fast.keras")
    fast = keras.saving.load_model(tmp_path / "fast.keras", compile=False)
    np.testing.assert_array_equal(outputs(fast)[0], outputs(prune(model, 1))[0])
    assert (tmp_path / "fast.keras").stat().st_size < (tmp_path / "accurate.keras").stat().st_size


def test_fast_head_is_the_prediction_and_all_heads_stay_supervised():
    prediction, *heads = outputs(build(fast_head=2))
    assert len(heads) == 3
    np.testing.assert_array_equal(prediction, heads[1])


def test_saving_the_prediction_of_a_fast_head_prunes():
    model = build(fast_head=2)
    saved = keras.Model(model.input, model.outputs[0])
    assert saved.count_params() == prune(model, 2).count_params() < model.count_params()


def test_fast_head_without_supervision_builds_only_what_it_needs():
    alone = component(fast_head=2, deep_supervision=False)
    assert build_model(alone, 1, 1).count_params() == prune(build(), 2).count_params()
    assert stride(alone) == 4 and stride(component(fast_head=2)) == 8


def test_two_levels_have_one_head():
    prediction, head = outputs(build(depth=2))
    np.testing.assert_array_equal(prediction, head)


@pytest.mark.parametrize("convolutions", [1, 2])
def test_nested_nodes_have_as_many_convolutions_as_asked_for(convolutions):
    model = build(nested_convolutions=convolutions, normalisation="none", up="nearest_only")
    kernels = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    ]
    assert len(kernels) == 4 * 2 + 6 * convolutions  # four nodes of the encoder, six nested ones


def test_normalisation_follows_the_activation_only_where_asked_for():
    def before(model):
        norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        return {type(layer.input._keras_history.operation).__name__ for layer in norms}

    assert before(build(activation_first=True)) == {"Activation"}
    assert before(build()) == {"Conv2D"}


@pytest.mark.parametrize("known", [stride, lambda component: build_model(component, 1, 1)])
def test_head_beyond_the_depth_is_refused_before_and_when_building(known):
    with pytest.raises(
        MicrosegError, match="fast_head 4 is not there; depth 4 has the heads 1 to 3, and 0 is the"
    ):
        known(component(fast_head=4))


@pytest.mark.parametrize(
    ("name", "message"), [("unet_plus_plus", "its heads are 1, 2, 3"), ("unet", "it is no U-Net")]
)
def test_pruning_at_a_head_that_is_not_there_is_refused(name, message):
    model = build_model(Component(name=name, params={"depth": 4, "filters": 2}), 1, 1)
    with pytest.raises(MicrosegError, match=f"model '{name}' has no head 4; .*{message}"):
        prune(model, 4)


def test_a_loss_per_head_trains_every_head():
    model = build(depth=3)
    model.compile("sgd", loss=[None, "binary_crossentropy", "binary_crossentropy"], run_eagerly=True)
    batch, target = np.ones((1, 8, 8, 1), np.float32), np.zeros((1, 8, 8, 1), np.float32)
    before = [prune(model, head).get_layer(f"head_{head}").get_weights() for head in (1, 2)]
    model.train_on_batch(batch, [target] * 3)
    after = [model.get_layer(f"head_{head}").get_weights() for head in (1, 2)]
    for old, new in zip(before, after, strict=True):
        assert not np.array_equal(old[1], new[1])
