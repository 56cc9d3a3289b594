"""Checkpoints: whole or as before, only for exactly this training, and nothing is left behind."""

import errno

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.training import checkpoint
from microseg.training.checkpoint import Course, Watch, discard_checkpoints, identity, load, save
from microseg.training.validation import Evaluation


def network(filters=2, optimizer=None):
    """A compiled network with state that is no weight: an optimizer's, and a generator of dropout."""
    inputs = keras.Input((4, 4, 1))
    encoder = keras.Sequential([keras.layers.Conv2D(filters, 1), keras.layers.Dropout(0.5)])
    model = keras.Model(inputs, keras.layers.BatchNormalization()(encoder(inputs)))
    model.compile(optimizer or keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def course(epochs, best=None, **changes):
    values = {
        "identity": "this",
        "stopped": False,
        "seconds": 1.5,
        "best_epoch": best or epochs,
        "watches": (Watch(wait=2, best=0.25),),
        "history": [{"val/dice": epoch / 3} for epoch in range(epochs)],
        "evaluation": Evaluation({"val/dice": 0.5}, {"a": 0.1, "b": 0.9}, False),
    }
    return Course.model_validate(values | changes)


def values(model):
    return [np.array(value) for value in (*model.variables, *model.optimizer.variables)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_holds_what_keras_weights_leave_out(tmp_path):
    """A trap of Keras: the generators of dropout are variables of a model, but none of its weights."""
    model = network()
    model.fit(np.ones((4, 4, 4, 1)), np.zeros((4, 4, 4, 2)), epochs=2, verbose=0)
    save(tmp_path, course(1), model)
    found = load(tmp_path, "this")
    assert found.course == course(1)
    arrays = [*found.weights, *found.state]
    assert len(arrays) == len(values(model))
    assert {value.tobytes() for value in values(model)} == {array.tobytes() for array in arrays}
    generators = [v for v in model.variables if "seed" in v.path]
    assert len(generators) == 1 and not {id(v) for v in generators} & {id(v) for v in model.weights}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_sixteen_bits_are_never_what_is_kept(tmp_path, policy):
    """numpy's files know no bfloat16; the scale of the loss in float16 is among what is kept."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = network()
        save(tmp_path, course(1), model)
    finally:
        keras.config.set_dtype_policy(before)
    found = load(tmp_path, "this")
    kinds = {array.dtype.name for array in (*found.weights, *found.state)}
    assert kinds <= {"float32", "int32", "int64", "uint32"}
    scaled = [array for array in found.state if array.shape == () and array == 2.0**15]
    assert len(scaled) == (policy == "mixed_float16")


def test_the_files_named_are_the_files_there(tmp_path):
    """The best weights are not written twice: they are those of an earlier epoch, kept."""
    model = network()
    for epochs, best, files in [
        (1, 1, ["checkpoint.json", "state-1.npz", "weights-1.npz"]),
        (2, 1, ["checkpoint.json", "state-2.npz", "weights-1.npz", "weights-2.npz"]),
        (3, 3, ["checkpoint.json", "state-3.npz", "weights-3.npz"]),
    ]:
        first = model.get_weights()
        if epochs > 1:
            model.set_weights([weight + 1 for weight in first])
        save(tmp_path, course(epochs, best), model)
        assert names(tmp_path) == files
    model.set_weights([weight + 1 for weight in model.get_weights()])
    save(tmp_path, course(4, 3), model)
    found = load(tmp_path, "this")
    assert all(np.array_equal(a, b + 1) for a, b in zip(found.weights, found.best_weights, strict=True))


@pytest.mark.parametrize("name", ["checkpoint.json", "state-2.npz", "weights-2.npz", "weights-1.npz"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "one byte"])
def test_what_is_torn_is_no_checkpoint(tmp_path, name, damage):
    model = network()
    save(tmp_path, course(1), model)
    save(tmp_path, course(2, best=1), model)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "one byte":
        if path.suffix == ".json":
            content[0] = 0
        else:
            start = content.index(b"NUMPY") + 130  # the values of an array, of which a zip keeps a sum
            content[start] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "half" else 0])
    assert load(tmp_path, "this") is None


@pytest.mark.parametrize("written", range(4))
def test_a_save_that_breaks_off_leaves_the_one_before(tmp_path, monkeypatch, written):
    """A disk that is full, or a machine that fails, after each of the files that a checkpoint is made of."""
    model = network()
    save(tmp_path, course(1), model)
    before, count, sync = model.get_weights(), 0, checkpoint._sync

    def full(file):
        nonlocal count
        count += 1
        if count > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(checkpoint, "_sync", full)
    model.set_weights([weight + 1 for weight in before])
    if written < 3:
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, course(2), model)
    else:
        save(tmp_path, course(2), model)
    found = load(tmp_path, "this")
    assert len(found.course.history) == (2 if written == 3 else 1)
    expected = model.get_weights() if written == 3 else before
    assert all(np.array_equal(a, b) for a, b in zip(found.weights, expected, strict=True))
    monkeypatch.undo()
    save(tmp_path, course(3), model)
    assert names(tmp_path) == ["checkpoint.json", "state-3.npz", "weights-3.npz"]


def test_the_checkpoint_of_another_training_is_none(tmp_path):
    save(tmp_path, course(1), network())
    assert load(tmp_path, "another") is None
    assert load(tmp_path / "nothing", "this") is None


def test_an_identity_is_of_the_training_its_parts_the_precision_and_the_network():
    model = network()
    same = identity("fold", 1, model)
    assert same == identity("fold", 1, network())
    others = [identity("other", 1, model), identity("fold", 2, model), identity("fold", 1, network(3))]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    others.append(identity("fold", 1, model))
    keras.config.set_dtype_policy(before)
    assert len({same, *others}) == 5


@given(st.floats(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_numbers_survive_the_file_to_the_last_bit(number, wait):
    """Also those that JSON does not know."""
    whole = course(1, watches=(Watch(wait=wait, best=number),), history=[{"train/loss": number}])
    again = Course.model_validate_json(whole.model_dump_json())
    for found in (again.watches[0].best, again.history[0]["train/loss"]):
        assert np.float64(found).tobytes() == np.float64(number).tobytes() or np.isnan([found, number]).all()
    assert again.watches[0].wait == wait


def test_only_checkpoints_are_discarded(tmp_path):
    for fold in ("fold-0", "fold-1"):
        save(tmp_path / fold / checkpoint.FOLDER, course(1), network())
    (tmp_path / "fold-0" / "result.json").touch()
    (tmp_path / "fold-1" / checkpoint.FOLDER / ".weights-2.npz.5e").touch()  # a write that was killed
    discard_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["result.json"]
