"""What every machine must see, by where the images, the runs and the states of trials are."""

from types import SimpleNamespace

import pytest

from microseg.config import SearchConfig
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.data.synthetic import write_demo
from microseg.study.needs import HOME, IMAGES, TRACKING, WEIGHTS, needs
from microseg.study.request import Request

SERVER = "http://127.0.0.1:5000"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Return a function from the address of the images and the space to what a study has prepared."""
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MICROSEG_STORE", raising=False)
    cells = write_demo(tmp_path / "cells", images=8, sessions=2)
    manifest = open_dataset(cells, DataOptions(), tmp_path / "cache")

    def made(data="", space=None):
        request = Request(name="s", data=data or cells, config=SearchConfig(space=space or {}))
        return SimpleNamespace(request=request, manifest=manifest)

    return made


def advices(found) -> list[str]:
    assert all(need.path.exists() for need in found.paths)
    return [need.advice for need in found.paths]


def test_without_a_store_all_share_the_folder_and_what_lies_on_disks(prepared, tmp_path):
    with needs(prepared(), f"sqlite:///{tmp_path}") as found:
        assert advices(found) == [IMAGES, IMAGES, TRACKING, HOME] and not found.store
        probe = found.paths[-1].path
    assert not probe.exists()  # it is there while machines are asked


def test_images_on_s3_and_a_store_leave_nothing_to_share(prepared, monkeypatch, tmp_path):
    monkeypatch.setenv("MICROSEG_STORE", "s3://lab/state")
    with needs(prepared("s3://lab/cells"), SERVER) as found:
        assert found == ((), "s3://lab/state/studies")
    assert not (tmp_path / "home").exists()
    with needs(prepared(), SERVER) as found:
        assert advices(found) == [IMAGES, IMAGES]


def test_weights_that_a_space_names_are_seen_by_all(prepared, monkeypatch, tmp_path):
    monkeypatch.setenv("MICROSEG_STORE", "s3://lab/state")
    weights = tmp_path / "vgg16.h5"
    weights.touch()
    choices = {"weights": {"choice": [str(weights), "imagenet", str(tmp_path / "none.h5")]}}
    space = {"model": {"one_of": [{"name": "encoder_unet", "params": choices}]}}
    with needs(prepared("s3://lab/cells", space), SERVER) as found:
        assert [(need.path, need.advice) for need in found.paths] == [(weights, WEIGHTS)]
