"""Folders of Zarr that lead elsewhere: by a path in the metadata, by a link, by what is no file."""

import os

import numpy as np
import pytest
import zarr

from microseg.data.streams import open_stream
from microseg.errors import MicrosegError


def array(folder, value):
    zarr.create_array(folder, shape=(8, 8), chunks=(8, 8), dtype="uint8", compressors=None)[...] = value
    return folder


def image(folder, path, version=3):
    entry = {
        "axes": [{"name": axis, "type": "space"} for axis in "yx"],
        "datasets": [{"path": path, "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}],
    }
    attributes = {"multiscales": [entry]}
    attributes = {"ome": {"version": "0.5"} | attributes} if version == 3 else attributes
    zarr.create_group(folder, zarr_format=version, attributes=attributes)
    return folder


def read(folder):
    with open_stream(folder) as stream:
        return stream.read(slice(None), slice(None))[..., 0]


def refused(folder, reason):
    with pytest.raises(MicrosegError, match=reason) as caught:
        read(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("path", ["../secret", "0/../../secret", "..\\secret", "..", "{0}", "file://{0}"])
def test_a_path_in_the_metadata_does_not_leave_the_folder(tmp_path, version, path):
    secret = array(tmp_path / "secret", 7)
    folder = image(tmp_path / "image.zarr", path.format(secret), version)
    refused(folder, r"segments\.\); save it again|which is missing; copy it again")


def test_a_link_that_somebody_made_on_this_machine_is_followed(tmp_path):
    folder = image(tmp_path / "image.zarr", "0")
    (folder / "0").symlink_to(array(tmp_path / "elsewhere", 7))
    assert (read(folder) == np.uint8(7)).all()


def test_what_has_no_end_is_not_read(tmp_path):
    folder = image(tmp_path / "image.zarr", "0")
    array(folder / "0", 7)
    for name, reason in (("0/c/0/0", "c/0/0 is no file"), ("0/zarr.json", r"0/zarr\.json is no file")):
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            (folder / name).unlink()
            make(folder / name)
            refused(folder, reason)
    (folder / "zarr.json").unlink()
    (folder / "zarr.json").symlink_to("/dev/zero")
    refused(folder, "give the path of")


def test_a_link_in_a_circle_is_refused(tmp_path):
    folder = image(tmp_path / "image.zarr", "0")
    (folder / "0").symlink_to(folder)
    refused(folder, "names the array 0, which is missing")
    (folder / "0").unlink()
    (folder / "0").symlink_to("0")
    refused(folder, "symbolic links|missing")
