"""Every branch of a space is checked before anything is trained; every space we ship can be sampled."""

import re
from pathlib import Path

import pytest

from microseg.checks import TABLES, check_data, check_space, check_trial
from microseg.config import SearchConfig, TrialConfig, parse, read_search
from microseg.errors import MicrosegError
from microseg.losses import LOSSES
from microseg.search.trials import Trials

SPACES = sorted((Path(__file__).parent.parent / "search_spaces").rglob("*.yaml"))
UNET = {"name": "unet", "params": {"depth": 3}}


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_space_passes_and_samples_to_valid_trials(file, tmp_path):
    config = read_search(file)
    space = check_space(config, str(file))
    trials = Trials(tmp_path / "optuna.db", "study", space, seed=1, mode=config.mode)
    for _ in range(12):
        _, trial = trials.propose()
        check_trial(trial)


def test_there_are_spaces():
    named = {"smoke", "unet_family", "encoders", "losses", "augmentations"}
    assert {file.stem for file in SPACES} >= named


def test_the_space_of_losses_leaves_none_out():
    folder = Path(__file__).parent.parent / "search_spaces"
    losses = read_search(folder / "losses.yaml").space["loss"]["one_of"]
    assert {loss["name"] for loss in losses} == set(LOSSES)


@pytest.mark.parametrize("slot", TABLES)
def test_the_readme_names_every_entry_of_every_table(slot):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (row,) = [
        line for line in readme.splitlines() if line.startswith("| `") and f"`{slot}`" in line.split("|")[1]
    ]
    assert set(TABLES[slot]) <= set(re.findall(r"`([a-z0-9_]+)`", row))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"model": {"name": "u_net"}}, "unknown model 'u_net'; did you mean 'unet'?"),
        ({"model": {"name": "unet", "params": {"dept": 3}}}, "unknown parameter 'dept'; did you mean 'depth'?"),
        ({"model": UNET, "loss": {"one_of": [{"name": "dice"}, {"name": "diec"}]}}, "unknown loss 'diec'"),
        ({"model": UNET, "optimizer": {"name": "adam", "params": {"learning_rate": {"uniform": [-1, 1]}}}}, "-1"),
        ({"model": UNET, "augment": {"name": "flip"}}, "did you mean 'flips'?"),
        ({"model": UNET, "preprocess": {"name": "percentil"}}, "did you mean 'percentile'?"),
        ({"model": UNET, "tile": 66}, "tile 66 is not a multiple of 4, which model 'unet' (depth 3) needs; use 64 or 68"),
        ({"model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 6]}}}, "tile": {"choice": [16, 64]}},
         "tile 16 is not a multiple of 32"),
        ({"model": UNET, "tiles": 64}, "unknown key 'tiles'; did you mean 'tile'?"),
        ({"model": UNET, "schedule": {"name": "cosin"}}, "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ({"model": UNET, "monitor": "val/auc"}, "unknown metric 'val/auc'"),
        ({"model": UNET, "optimizer": {"name": "sgd", "params": {"clipnorm": 1.0, "clipvalue": 1.0}}},
         "clipnorm 1.0 and clipvalue 1.0 are given; choose one of them"),
        ({"model": {"name": "encoder_unet", "params": {"depth": 3, "dropout": [0.1]}}},
         "parameter 'dropout' has 1 rates, the decoder 2 blocks"),
        ({"model": UNET, "loss": {"name": "bce", "params": {"class_weights": "balance"}}}, "'balanced'"),
        ({"model": {"name": "encoder_unet", "params": {"encoder": "vgg61"}}},
         "parameter 'encoder' is 'vgg61'; did you mean 'vgg19'?"),
    ],
)  # fmt: skip
def test_a_branch_that_could_not_be_trained_is_refused(space, said):
    with pytest.raises(MicrosegError) as caught:
        check_space(SearchConfig(space=space), "s.yaml")
    assert str(caught.value).startswith("s.yaml: ")
    assert said in str(caught.value)


def test_a_loss_that_is_minimised_must_be_searched_downwards():
    search = {"space": {"model": UNET}, "metric": "val/loss"}
    with pytest.raises(MicrosegError, match="val/loss is better when it is lower; set mode: min"):
        check_space(parse(SearchConfig, search, "s"), "s")
    assert check_space(parse(SearchConfig, search | {"mode": "min"}, "s"), "s").part("monitor") == [
        "val/loss"
    ]


def test_values_of_different_losses_are_not_compared():
    losses = {"one_of": [{"name": "dice"}, {"name": "bce"}]}
    search = {"space": {"model": UNET, "loss": losses}, "metric": "val/loss", "mode": "min"}
    with pytest.raises(
        MicrosegError, match="values of different losses do not compare; set metric: val/dice"
    ):
        check_space(parse(SearchConfig, search, "s"), "s")
    check_space(parse(SearchConfig, search | {"metric": "val/iou", "mode": "max"}, "s"), "s")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"preprocess": {"name": "scale", "params": {"channels": {"choice": [[0], [2]]}}}}, "channel 2 does not exist"),
        ({"loss": {"one_of": [{"name": "dice"}, {"name": "bce", "params": {"class_weights": [1.0, 2.0, 3.0]}}]}},
         "loss 'bce': class_weights has 3 numbers, the data has 2 classes; give one number per class"),
    ],
)  # fmt: skip
def test_a_part_that_does_not_suit_the_data_is_refused(part, said):
    space = check_space(SearchConfig(space={"model": UNET} | part), "s")
    with pytest.raises(MicrosegError, match=said):
        check_data(space, 2, 1, "study s")


@pytest.mark.parametrize("loss", [{"name": "bce"}, {"name": "bce", "params": {"class_weights": "balanced"}},
                                  {"name": "focal", "params": {"class_weights": [0.2, 0.8]}}])  # fmt: skip
def test_class_weights_that_suit_the_data_pass(loss):
    check_data(check_space(SearchConfig(space={"model": UNET, "loss": loss}), "s"), 1, 1, "study s")


def test_an_unknown_metric_is_refused():
    with pytest.raises(MicrosegError, match=r"unknown metric 'val/dise'; did you mean 'val/dice'\?"):
        check_space(parse(SearchConfig, {"space": {"model": UNET}, "metric": "val/dise"}, "s"), "s")


def test_one_configuration_is_checked_alike():
    with pytest.raises(MicrosegError, match="tile 66 is not a multiple of 4"):
        check_trial(TrialConfig.model_validate({"model": UNET, "tile": 66}), "best.yaml")
