"""Every branch of a space is checked before anything is trained; every space we ship can be sampled."""

import re
from pathlib import Path

import optuna
import pytest
import yaml

from microseg.checks import TABLES, check_data, check_space, check_trial, fitting_points, start_points
from microseg.config import SearchConfig, TrialConfig, parse, read_search
from microseg.errors import MicrosegError
from microseg.losses import LOSSES
from microseg.search.samplers import check_sampler, sampler
from microseg.search.suggest import OptunaSuggest

SPACES = sorted((Path(__file__).parent.parent / "search_spaces").rglob("*.yaml"))
UNET = {"name": "unet", "params": {"depth": 3}}


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_space_passes_and_its_samples_are_trials_that_can_be_tried_first(file):
    """What Optuna is given to try first comes back from it as it was."""
    config = read_search(file)
    space = check_space(config, str(file))
    check_sampler(config, space, str(file))
    study = optuna.create_study(directions=["maximize"] * (1 + (config.against is not None)))
    samples = []
    for number in range(20):
        study.sampler = sampler(config, number, 0)
        samples.append(space.sample(OptunaSuggest(study.ask())))
        trial = TrialConfig.model_validate(samples[-1])
        check_trial(trial)
        points, _ = fitting_points([trial.model_dump(mode="json")], config, space, "s")
        if space.violated(samples[-1]) is None:
            assert points == [space.parameters(samples[-1])]
        study.enqueue_trial(space.parameters(samples[-1]))
        assert space.sample(OptunaSuggest(study.ask())) == samples[-1]
    assert len({str(sample) for sample in samples}) > 1


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


DEEP = {"name": "unet", "params": {"depth": {"int_uniform": [2, 6]}}}
SMALL_TILES_SHALLOW = {"when": {"model/params/depth": {"min": 6}}, "need": {"tile": {"min": 64}}}


def test_a_pair_that_the_constraints_exclude_may_be_unfit():
    space = {"model": DEEP, "tile": {"choice": [48, 64]}}
    with pytest.raises(MicrosegError, match="tile 48 is not a multiple of 32"):
        check_space(SearchConfig(space=space), "s")
    check_space(SearchConfig(space=space, constraints=[SMALL_TILES_SHALLOW]), "s")


def test_what_lies_between_the_ends_is_checked_too():
    """Depth 6 is excluded, but depth 5 does not suit the small tile either."""
    space = {"model": DEEP, "tile": {"choice": [40, 64]}}
    with pytest.raises(MicrosegError, match=r"tile 40 is not a multiple of 16, .* \(depth 5\)"):
        check_space(SearchConfig(space=space, constraints=[SMALL_TILES_SHALLOW]), "s")


@pytest.mark.parametrize("batch_size", [{"choice": [2, 8]}, 2])
def test_a_pair_is_excluded_only_if_it_is_whatever_the_rest_is(batch_size):
    constraint = {"when": {"model/params/depth": 6, "batch_size": 2}, "need": {"tile": 64}}
    space = {"model": DEEP, "tile": {"choice": [48, 64]}, "batch_size": batch_size}
    search = SearchConfig(space=space, constraints=[constraint])
    if batch_size == 2:
        check_space(search, "s")
    else:
        with pytest.raises(MicrosegError, match="tile 48 is not a multiple of 32"):
            check_space(search, "s")


def test_parameters_that_exclude_each_other_may_be_kept_apart():
    params = {"clipnorm": {"choice": [1.0, None]}, "clipvalue": {"choice": [0.5, None]}}
    space = {"model": UNET, "optimizer": {"name": "adam", "params": params}}
    with pytest.raises(MicrosegError, match="choose one of them"):
        check_space(SearchConfig(space=space), "s")
    apart = {"when": {"optimizer/params/clipnorm": 1.0}, "need": {"optimizer/params/clipvalue": None}}
    check_space(SearchConfig(space=space, constraints=[apart]), "s")
    unknown = space | {"loss": {"name": "diec"}, "augment": {"name": "flip"}}
    with pytest.raises(MicrosegError, match="unknown loss 'diec'"):
        check_space(SearchConfig(space=unknown, constraints=[apart]), "s")


def test_batches_that_have_no_equal_parts_may_be_kept_apart():
    space = {"model": UNET, "batch_size": {"choice": [8, 6]}, "accumulation": {"choice": [1, 4]}}
    whole = {"when": {"accumulation": 4}, "need": {"batch_size": 8}}
    check_space(SearchConfig(space=space, constraints=[whole]), "s")
    with pytest.raises(MicrosegError, match="4 does not divide 6"):
        check_space(SearchConfig(space=space | {"batch_size": {"choice": [6, 8]}}), "s")
    check_space(SearchConfig(space=space | {"batch_size": {"choice": [6, 8]}}, constraints=[whole]), "s")


def test_constraints_are_checked_against_the_space_and_its_defaults():
    def check(**constraint):
        check_space(SearchConfig(space={"model": UNET}, constraints=[constraint]), "s.yaml")

    check(when={"loss/name": "bce_dice"}, need={"tile": {"min": 256}, "batch_size": 8})
    with pytest.raises(
        MicrosegError, match=r"s.yaml: constraints\[0\]: need: unknown path 'tiles'; did you mean 'tile'"
    ):
        check(need={"tiles": 64})
    with pytest.raises(MicrosegError, match="'tile 64' never holds; the space has 256"):
        check(need={"tile": 64})


SEARCH = SearchConfig(
    space={
        "model": {"one_of": [DEEP, {"name": "u2net"}]},
        "loss": {"name": "dice"},
        "tile": {"choice": [64, 128]},
        "epochs": 20,
    },
    constraints=[{"when": {"model/params/depth": 6}, "need": {"tile": {"min": 128}}}],
    seed=5,
)


def starts(*entries):
    search = SEARCH.model_copy(update={"start_with": entries})
    return start_points(search, check_space(search, "s.yaml"), "s.yaml")


def test_a_search_starts_with_parts_of_configurations_and_with_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = {
        "model": {"name": "unet", "params": {"depth": 4}},
        "loss": {"name": "dice"},
        "tile": 64,
        "epochs": 20,
    }
    whole = TrialConfig.model_validate(best | {"seed": 9, "monitor": "val/iou", "accumulation": 4})
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(whole.model_dump(mode="json")))
    assert starts(
        "best.yaml", {"model": {"name": "u2net"}}, {"model": {"params": {"depth": 6}}, "tile": 128}
    ) == [
        {"model": "unet", "model/params/depth": 4, "tile": 64},
        {"model": "u2net"},
        {"model": "unet", "model/params/depth": 6, "tile": 128},
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"tile": 96}, "tile is 96; allowed: 64, 128"),
        ({"tile": 64, "epochs": 30}, "epochs is 30; the space fixes it at 20"),
        ({"overlap": 0.5}, "overlap is 0.5; the space fixes it at 0.25"),
        ({"loss": {"name": "bce"}}, "loss/name is 'bce'; the space fixes it at 'dice'"),
        ({"epoch": 20}, "epoch is 20; not in the space; did you mean 'epochs'?"),
        ({"model": {"params": {"depth": 6}}, "tile": 64}, "refused by a constraint: model/params/depth 6 only with tile >= 128 (given: tile 64)"),
    ],
)  # fmt: skip
def test_a_start_that_is_no_point_of_the_space_is_refused(entry, said):
    with pytest.raises(MicrosegError) as caught:
        starts({}, entry)
    assert str(caught.value).startswith(f"s.yaml: start_with[1]: {said}")


def test_a_start_in_a_file_is_refused_with_its_name(tmp_path):
    file = tmp_path / "best.yaml"
    with pytest.raises(MicrosegError, match=r"best.yaml: no such file; give the path of a YAML file"):
        starts(str(file))
    file.write_text("tile: 96")
    with pytest.raises(MicrosegError, match=r"start_with\[0\] \(.*best.yaml\): tile is 96"):
        starts(str(file))
    file.write_text("- tile")
    with pytest.raises(MicrosegError, match=r"best.yaml\): expected a configuration, a mapping, got list"):
        starts(str(file))


def test_a_start_may_not_differ_in_what_the_space_itself_states():
    search = SEARCH.model_copy(
        update={"space": SEARCH.space | {"monitor": "val/loss"}, "start_with": ({"monitor": "val/dice"},)}
    )
    with pytest.raises(MicrosegError, match="monitor is 'val/dice'; the space fixes it at 'val/loss'"):
        start_points(search, check_space(search, "s"), "s")


def test_of_another_study_those_that_fit_are_taken_and_the_others_explained():
    configs = [{"tile": 64, "batch_size": 3}, {"tile": 128, "seed": 77}, {"tile": 32}]
    points, reasons = fitting_points(configs, SEARCH, check_space(SEARCH, "s"), "s")
    assert points == [{"tile": 128}]
    assert reasons == ["s: batch_size is 3; the space fixes it at 8", "s: tile is 32; allowed: 64, 128"]


def test_what_a_short_study_found_is_tried_in_a_long_one_unless_that_searches_the_length():
    short = [{"tile": 64, "epochs": 5, "patience": 3, "steps_per_epoch": 2}]
    points, reasons = fitting_points(short, SEARCH, check_space(SEARCH, "s"), "s")
    assert (points, reasons) == ([{"tile": 64}], [])
    searched = SEARCH.model_copy(update={"space": SEARCH.space | {"epochs": {"int_uniform": [10, 20]}}})
    _, (reason,) = fitting_points(short, searched, check_space(searched, "s"), "s")
    assert reason == "s: epochs is 5; allowed: whole numbers from 10 to 20"


def test_constraints_that_leave_nothing_are_refused_before_a_study_begins():
    """Each of them holds somewhere, never both."""
    constraints = [
        {"when": {"model/params/depth": 2}, "need": {"tile": 64}},
        {"when": {"model/params/depth": 3}, "need": {"tile": 64}},
        {"need": {"tile": {"max": 32}}},
    ]
    values = {
        "model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 3]}}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1.0e-4, 1.0e-2]}}},
        "tile": {"choice": [32, 64]},
    }
    some = SearchConfig.model_validate({"space": values, "constraints": constraints[:2]})
    check_space(some, "s")
    none = SearchConfig.model_validate({"space": values, "constraints": constraints})
    with pytest.raises(MicrosegError, match="refuse all of 1000 random configurations"):
        check_space(none, "s")
