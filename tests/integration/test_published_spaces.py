"""The search spaces of the five published projects: each runs as a search, each network of them trains."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from microseg.config import TrialConfig, read_search
from microseg.data.images import read_image, read_labels, write_image
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.data.synthetic import write_demo
from microseg.folds import Fold
from microseg.models import stride
from microseg.report import find_study, view
from microseg.space import parse_space
from microseg.training import TrainingData, train_fold

pytestmark = pytest.mark.slow
PUBLISHED = ("afm", "hela", "mito", "nuclei", "tiled")
# What makes a family small; the structure, which is what the project compared, stays.
SMALL = {
    "unet": {"filters": 2},
    "unet_plus_plus": {"filters": 2},
    "encoder_unet": {"filters": 2, "weights": "none"},
    "deeplab_v3_plus": {"filters": 8, "weights": "none"},
    "multires_unet": {"filters": 4},
    "unet3_plus": {"filters": 4, "skip_filters": 4},
    "u2net": {"size": "lite"},
    "swin_unet": {"filters": 4, "heads": 1},
}
SWAPPED = {"efficientnet_b7": "efficientnet_b0"}  # the same code with an eighth of the weights


def tiny(component):
    """Return a component of a space with few filters and without weights from the network."""
    params = component.get("params", {}) | SMALL[component["name"]]
    encoder = params.get("encoder")
    if isinstance(encoder, str):  # not a choice of several
        params["encoder"] = SWAPPED.get(encoder, encoder)
    return component | {"params": params}


def cut(name, project):
    """Return a published search, cut to a trial that trains in seconds."""
    search = yaml.safe_load((project / f"search_spaces/published/{name}.yaml").read_text())
    space = search["space"]
    model = space["model"]
    space["model"] = (
        {"one_of": [tiny(part) for part in model["one_of"]]} if "one_of" in model else tiny(model)
    )
    space |= {"tile": 128, "epochs": 1, "steps_per_epoch": 2, "batch_size": 2}
    return search | {"trials": 1, "folds": 2, "holdout": 0.0}


def listed(folder, rows):
    """Write a manifest that points to images where they lie."""
    with (folder / "chosen.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "mask", "group"])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "chosen.csv"


def real(folder, source, groups, count=6):
    """Choose some images of a real set, evenly."""
    images = sorted((source / "images").iterdir())
    chosen = [images[i] for i in np.linspace(0, len(images), count, endpoint=False).astype(int)]
    rows = []
    for image in chosen:
        (mask,) = (source / "masks").glob(f"{image.stem}.*")
        rows.append({"image": image, "mask": mask, "group": groups(image.stem)})
    return listed(folder, rows)


def coloured(folder):
    """Write synthetic cells as if stained: RGB images of 8 bits."""
    write_demo(folder / "grey", images=6, sessions=3, size=160)
    for path in (folder / "grey/images").iterdir():
        grey = read_image([path]).astype(float)
        grey = (255 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)
        write_image(folder / f"rgb/images/{path.stem}.png", np.concatenate([grey, 255 - grey, grey // 2], -1))
        mask = (read_labels(folder / f"grey/masks/{path.stem}.png") > 0).astype(np.uint8) * 255
        write_image(folder / f"rgb/masks/{path.stem}.png", mask)
    return folder / "rgb"


@pytest.fixture
def dataset(tmp_path, real_data):
    """Return a function from a project's name to a small set of its kind."""

    def find(name):
        if name == "afm":
            return real(tmp_path, real_data("afm_astrocyte"), lambda stem: stem.rsplit("_", 2)[0], count=4)
        if name == "hela":
            return real(tmp_path, real_data("t98g_phase_usiigaci"), lambda stem: stem, count=4)
        if name == "nuclei":
            return real(tmp_path, real_data("dsb2018_nuclei"), lambda stem: stem)
        return coloured(tmp_path) if name == "tiled" else write_demo(tmp_path / "demo", images=6, sessions=3)

    return find


def searched(desk, data, name):
    """Run a search; after so few steps every network may have collapsed, and then it must say so."""
    process = desk.start("search", "--data", str(data), "--space", "space.yaml", "--study", name)
    out, err = process.communicate(timeout=480)
    found = view(desk.client, find_study(desk.client, name))
    if found.ranked:
        assert process.returncode == 0 and "@candidate" in out, out + err
    else:
        assert process.returncode == 2 and "has all folds" in err and "collapsed" in err, out + err
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_space_searches_on_images_of_its_kind(name, dataset, desk_in, project, tmp_path):
    search, data = cut(name, project), dataset(name)
    if name == "afm":  # of its three channels only the height is public
        search["space"]["preprocess"]["params"]["channels"] = [0]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(search))
    found = searched(desk_in(tmp_path), data, name)
    assert len(found.rows) == 1
    assert {row.state for row in found.rows} <= {"completed", "pruned", "collapsed"}
    assert all(-1.0 <= row.mean <= 1.0 for row in found.ranked)  # MCC may be negative


def networks():
    """Yield every network that a published space can build, by name."""
    root = Path(__file__).parents[2] / "search_spaces/published"
    for name in PUBLISHED:
        config = read_search(root / f"{name}.yaml")
        node = parse_space({"model": config.space["model"]})
        seen = {str(model): model for model in node.part("model")}
        for number, model in enumerate(seen.values()):
            yield pytest.param(name, model, id=f"{name}-{number}-{model['name']}")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Stained cells and grey ones, each opened once."""

    def opened(folder):
        cache = tmp_path_factory.mktemp("cache")
        return TrainingData(open_dataset(folder, DataOptions(), cache), cache)

    grey = write_demo(tmp_path_factory.mktemp("grey") / "demo", images=6, sessions=3)
    return {"coloured": opened(coloured(tmp_path_factory.mktemp("coloured"))), "grey": opened(grey)}


@pytest.fixture
def untraced(monkeypatch):
    """Networks whose steps are not traced: for one step that takes as long as all else.

    A search traces one of them, see above; so do the tests of each architecture.
    """
    compiled = keras.Model.compile
    monkeypatch.setattr(
        keras.Model, "compile", lambda network, **given: compiled(network, **given, run_eagerly=True)
    )


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(("name", "model"), list(networks()))
def test_every_network_of_a_published_space_trains(name, model, tmp_path, project, sets):
    space = cut(name, project)["space"]
    model = tiny(model)
    loss = next(parse_space({"loss": space["loss"]}).corners())["loss"]
    config = TrialConfig.model_validate(
        {"model": model, "loss": loss, "tile": 128, "epochs": 1, "steps_per_epoch": 1, "batch_size": 2}
    )
    assert 128 % stride(config.model) == 0
    data = sets["grey" if name == "mito" else "coloured"]
    names = [item.name for item in data.manifest.items]
    fold = Fold(index=0, train=tuple(names[:4]), valid=tuple(names[4:]))
    result = train_fold(config, data, fold, tmp_path / "work", lambda _: None)
    assert result.state in ("completed", "collapsed")
    assert all(np.isfinite(value) for key, value in result.metrics.items() if key != "val/auc")


def test_an_input_modality_is_chosen_among_the_channels(tmp_path, desk_in, project):
    """AFM compared height, deflection, friction and all three: a dimension of its space."""
    search = cut("afm", project)
    search["space"]["model"] = search["space"]["model"]["one_of"][0]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(search))
    desk, data = desk_in(tmp_path), coloured(tmp_path)
    rows = searched(desk, data, "modality").rows
    assert {row.params["preprocess/params/channels"] for row in rows} <= {"[0]", "[1]", "[2]", "[0, 1, 2]"}
    grey = "--data", str(tmp_path / "grey")
    error = desk.run("search", *grey, "--space", "space.yaml", "--study", "height", code=2)
    assert "channel" in error and error.count("\n") == 1
