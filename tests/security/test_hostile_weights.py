"""Weights for an encoder from files that attack: refused in one line before a study begins, in bounded memory."""

import json
import os
import pickle
import resource
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest
import yaml

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import ARCHITECTURES
from microseg.models.saved import CONFIG, METADATA, WEIGHTS

SECRET = "/etc/passwd"


def asked(path):
    params = {"encoder": "mobilenet_v3_small", "weights": str(path)}
    return check(Component(name="encoder_unet", params=params), ARCHITECTURES, "model")


class Planted:
    """What a pickle that is read would do."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def external(file):
    file.create_dataset("vars/0", (8,), "u1", external=[(SECRET, 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((8,), "u1")
    layout[:] = h5py.VirtualSource(SECRET, "vars/0", (8,))
    file.create_virtual_dataset("vars/0", layout)


def linked(file):
    file["layers/conv/vars"] = h5py.ExternalLink(SECRET, "/vars")


def giant(file):
    file.create_dataset("vars/0", (2**40,), "f4", chunks=(2**10,))


def zipped(file):
    file.create_dataset("vars/0", data=np.zeros(2**22, "f4"), compression="gzip")


def coded(file):
    layer = {"class_name": "Lambda", "config": {"function": "planted"}}
    file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})


HOSTILE = {
    external: "its weights 'vars/0' lie in another file",
    virtual: "its weights 'vars/0' lie in another file",
    linked: "its weights 'layers/conv/vars' lie in another file",
    giant: "it stores less than the 4398046511104 bytes",
    zipped: "it stores less than the 16777216 bytes",
    coded: "it holds 'Lambda', code that would run",
}


def refused(path, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MicrosegError) as caught:
        asked(path)
    text = str(caught.value)
    assert reason in text and "\n" not in text and len(text) < 500, text
    assert "no file of weights as Keras writes it (" in text and str(path) in text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_a_hostile_file_of_weights_is_refused(tmp_path, fill, suffix):
    path = inner = tmp_path / f"encoder{suffix}"
    if suffix == ".keras":
        inner = tmp_path / WEIGHTS
    with h5py.File(inner, "w") as file:
        fill(file)
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, WEIGHTS)
            for name in (CONFIG, METADATA):
                archive.writestr(name, "{}")
    refused(path, HOSTILE[fill])


def test_weights_that_share_one_place_in_the_file_are_refused(tmp_path):
    """A hundred arrays of 4 KB that are said to have 1 MB: they lie over each other."""
    path = tmp_path / "encoder.weights.h5"
    with h5py.File(path, "w") as file:
        for number in range(100):
            file.create_dataset(f"vars/{number}", data=np.zeros(1021, "f4"))
        file.create_dataset("vars/100", data=np.zeros(2**19, "f4"))
    data = path.read_bytes()
    for former, latter in ((1021, 2**18), (4 * 1021, 2**20)):
        assert data.count(struct.pack("<Q", former)) >= 100
        data = data.replace(struct.pack("<Q", former), struct.pack("<Q", latter))
    path.write_bytes(data)
    with h5py.File(path) as file:
        assert file["vars/0"][...].nbytes == file["vars/99"][...].nbytes == 2**20
    refused(path, "but asks for 106954752 bytes of weights")


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras", ".npz", ".weights.json", ".pkl"])
def test_a_pickle_is_not_read(tmp_path, suffix):
    marker, path = tmp_path / "owned", tmp_path / f"encoder{suffix}"
    path.write_bytes(pickle.dumps(Planted(marker)))
    refused(path, "signature" if suffix != ".keras" else "not a zip file")
    with path.open("wb") as file:
        np.savez(file, np.array([Planted(marker)], object))
    refused(path, "signature" if suffix != ".keras" else "not the three files")
    assert not marker.exists()


def test_a_file_that_changes_is_looked_at_anew(tmp_path):
    path = tmp_path / "encoder.weights.h5"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3)]).save_weights(path)
    asked(path)
    with h5py.File(path, "r+") as file:
        linked(file)
    refused(path, "lie in another file")


def test_a_study_with_such_weights_does_not_begin(tmp_path, called):
    path = tmp_path / "encoder.weights.h5"
    with h5py.File(path, "w") as file:
        external(file)
    model = {"name": "encoder_unet", "params": {"encoder": "mobilenet_v3_small", "weights": str(path)}}
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump({"model": model}))
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"space": {"model": model}}))
    for arguments in (["crossval", "--config"], ["search", "--space"]):
        name = "trial.yaml" if arguments[0] == "crossval" else "space.yaml"
        code, _, error = called(*arguments, str(tmp_path / name), "--data", str(tmp_path))
        assert code == 2 and error.count("\n") == 1 and "lie in another file" in error, error
