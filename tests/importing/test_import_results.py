"""A table of results from elsewhere becomes a study that is reported and compared as any other."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from microseg import report
from microseg.errors import MicrosegError
from microseg.importing import results
from microseg.importing.columns import Columns
from microseg.importing.results import ResultsRequest, import_results
from microseg.importing.table import read_results
from microseg.statistics import against, holm
from microseg.tracking import store, tree

WIDE = "id,network,lr,fold1,fold2,fold10\na,unet,0.010,0.9,0.8,0.7\nb,fpn,1e-3,0.5,,0.75\n"
LONG = "name;network;seconds;fold;dice;roc_auc\nb;fpn;3;1;0.5;0.6\nb;fpn;4;2;0.7;0.8\na;unet;5;2;0.8;nan\na;unet;6;1;0.9;0.9\n"


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table and returns its path."""

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of runs, which is the current one."""
    folder = tmp_path_factory.mktemp("place")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        patch.delenv(name, raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    yield SimpleNamespace(folder=folder, client=store.connect())
    mlflow.set_tracking_uri(None)
    patch.undo()


def runs(client, study):
    """Return all runs below a study: name, state, metrics and parameters."""
    found = [client.get_run(study.info.run_id)]
    for trial in tree.children(client, study.info.experiment_id, study.info.run_id):
        found += [trial, *tree.children(client, study.info.experiment_id, trial.info.run_id)]
    return sorted(
        (
            r.info.run_name,
            r.info.status,
            r.data.tags[tree.STATE],
            sorted(r.data.metrics.items()),
            sorted(r.data.params),
        )
        for r in found
    )


def test_a_row_per_configuration_keeps_its_texts_and_the_order_of_its_folds(table):
    found = read_results(table(WIDE), Columns())
    first, second = found.configurations
    assert (found.folds, first.scores, second.scores) == (3, (0.9, 0.8, 0.7), (0.5, None, 0.75))
    assert first.params == {"network": "unet", "lr": "0.010"}
    assert second.known == {0: 0.5, 2: 0.75}
    assert found.notes == ("1 of 2 lack folds and are not ranked: b",)


def test_a_row_per_fold_says_the_same_as_a_row_per_configuration(table):
    found = read_results(table(LONG), Columns(metric_columns=("roc_auc",)))
    second, first = found.configurations
    assert (first.name, first.scores, first.params, first.metrics) == (
        "a",
        (0.9, 0.8),
        {"network": "unet"},
        {"roc_auc": 0.9},
    )
    assert (second.name, second.scores) == ("b", (0.5, 0.7))
    assert second.metrics["roc_auc"] == pytest.approx(0.7)
    assert found.notes == ("left out, because they differ between folds: seconds",)


@pytest.mark.parametrize(
    ("text", "columns", "names", "scores"),
    [
        ("fold_2\tfold_1\tid\n0.2\t0.1\t7\n", {}, ["id-7"], (0.1, 0.2)),  # a mere number says little
        ("split1_test_score,split0_test_score\n2,1\n3,4\n", {}, ["row-1", "row-2"], (1, 2)),  # scikit-learn's
        (
            "x,y,net\n0.2,0.1,unet\n",
            {"fold_columns": ("y", "x"), "id_columns": ("net",)},
            ["unet"],
            (0.1, 0.2),
        ),
        (
            ",fold1,fold2\n0,0.1,0.2\n",
            {"id_columns": ("index",)},
            ["index-0"],
            (0.1, 0.2),
        ),  # as pandas writes it
        (
            "net,depth,fold1\nunet,5,0.1\nunet,4,0.2\n",
            {"id_columns": ("net", "depth")},
            ["unet 5", "unet 4"],
            (0.1,),
        ),
        ("n,d,fold,score\nx,5,1,0.1\nx,4,1,0.2\n", {"id_columns": ("n", "d")}, ["x 5", "x 4"], (0.1,)),
        ("id,a,fold1\n1,x,0.1\n2,y,0.2\n", {"where": ("a=y",)}, ["id-2"], (0.2,)),
        ("id,fold,score\n1,2,0.2\n1,10,0.3\n1,1,0.1\n", {}, ["id-1"], (0.1, 0.2, 0.3)),
    ],
)
def test_which_columns_are_meant(table, text, columns, names, scores):
    found = read_results(table(text), Columns(**columns)).configurations
    assert [one.name for one in found] == names
    assert found[0].scores == scores


def test_several_columns_that_make_a_name_stay_parameters(table):
    columns = Columns(id_columns=("net", "depth"))
    (one,) = read_results(table("id,net,depth,fold1\n7,unet,5,0.1\n"), columns).configurations
    assert (one.name, one.params) == ("unet 5", {"net": "unet", "depth": "5"})


def test_what_a_reader_would_not_expect_is_noted_and_column_names_fit_the_store(table):
    found = read_results(table("id,learning rate [1 s],roc_auc,fold1,fold2\nx,1,0.9,93,91\n"), Columns())
    assert found.configurations[0].params == {"learning rate _1 s_": "1", "roc_auc": "0.9"}
    assert found.notes == (
        "dice runs from 91 to 93, not within 0 to 1; taken as it is",
        "column 'roc_auc' is taken for a parameter; if it is a metric, add --metric-columns roc_auc",
    )


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("id,a\n1,2\n", {}, "no fold scores; name their columns by --fold-columns, .* columns: id, a"),
        ("id,fold1\n1,good\n", {}, "'good' in column 'fold1' of 'id-1' is no number"),
        ("id,fold1\n1,inf\n", {}, "'inf' in column 'fold1'"),
        ("id;fold1\n1;0,91\n", {}, "'0,91' in column 'fold1' of 'id-1' is no number; write 0.91"),
        ("id,fold1\n5,0.1\n5,0.2\n", {}, "'id-5' occurs 2 times in column 'id'; .* --where"),
        ("id,fold1\n", {}, "no rows"),
        ("id,fold1\n1\n", {}, "line 2 does not have the header's 2 columns"),
        ("id,fold1\n1,0.1\n", {"fold_columns": ("fold_1",)}, "no column 'fold_1'; did you mean 'fold1'"),
        ("id,fold1\n1,0.1\n", {"metric_columns": ("auc",)}, "no column 'auc'; allowed: fold1, id"),
        ("id,fold1\n1,0.1\n", {"id_columns": ("name",)}, "no column 'name'"),
        ("id,fold1\n1,0.1\n", {"where": ("id",)}, "--where 'id': give COLUMN=VALUE"),
        ("id,fold1\n1,0.1\n", {"where": ("ids=1",)}, "--where 'ids=1': .* did you mean 'id'"),
        ("id,fold1\nx,0.1\n", {"where": ("id=y",)}, "--where 'id=y': no row has it"),
        ("id,fold1\na'b,0.1\n", {}, "\"a'b\" in column 'id' is no name"),
        ("id,fold1\n,0.1\n", {}, "'' in column 'id' is no name"),
        ("fold,score\n1,0.1\n", {}, "a row per fold needs a column that names the configuration"),
        ("id,fold,score\na,1,0.1\na,1,0.2\n", {}, "'a' has a fold twice"),
        ("id,p!,p?,fold1\na,1,2,0.1\n", {}, "names that differ by special signs only"),
        ("id,..,fold1\na,1,0.1\n", {}, "the column name '..' has no letters"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(table, text, columns, said):
    with pytest.raises(MicrosegError, match=said) as caught:
        read_results(table(text), Columns(**columns))
    assert "\n" not in str(caught.value)


def test_an_imported_study_is_read_as_any_other_and_only_complete_rows_are_ranked(place, table):
    done = import_results(ResultsRequest(file=table(WIDE), name="wide"))
    view = report.view(place.client, report.find_study(place.client, "wide"))
    assert view.rows == done.view.rows
    assert (view.metric, view.mode, view.folds, view.varied) == ("val/dice", "max", 3, ["lr", "network"])
    best, other = view.rows
    assert (best.rank, best.name, best.state, best.scores) == (1, "a", "completed", (0.9, 0.8, 0.7))
    assert (best.mean, best.std) == pytest.approx((0.8, 0.1))
    assert (other.rank, other.state, other.scores) == (None, "interrupted", (0.5, 0.75))
    assert other.reason == "2 of 3 folds are in the table"
    assert best.seconds == other.seconds == 0  # nobody knows
    assert view.run.info.status == "FINISHED"
    assert results.RATIO not in view.run.data.tags  # nobody has stated it
    assert place.client.get_run(best.run_id).data.metrics["rank"] == 1
    assert place.client.get_run(best.run_id).data.tags["mean CI95"].startswith("0.8000 ± ")
    names = {file.path for file in place.client.list_artifacts(view.run.info.run_id)}
    assert {"table.csv", "leaderboard.csv"} <= names
    assert "0.8000" in report.page(place.client, view)
    assert "viewStateShareKey" in done.link


def test_the_same_table_is_known_again_and_another_one_refused(place, table):
    request = ResultsRequest(file=table(WIDE), name="again", test_to_train=0.3, lower_is_better=True)
    first = import_results(request)
    assert first.view.mode == "min"
    assert first.view.run.data.tags[results.RATIO] == "0.3"
    before = runs(place.client, first.view.run)
    second = import_results(request.model_copy(update={"file": table(WIDE, "renamed.csv")}))
    assert (first.known, second.known, second.view.run.info.run_id) == (
        False,
        True,
        first.view.run.info.run_id,
    )
    assert runs(place.client, second.view.run) == before
    for change in (
        {"file": table(WIDE.replace("0.9", "0.91"), "other.csv")},
        {"lower_is_better": False},
        {"columns": Columns(where=("id=a",))},
    ):
        with pytest.raises(MicrosegError, match=r"study 'again' exists in .*; choose another --name"):
            import_results(request.model_copy(update=change))
    assert runs(place.client, first.view.run) == before


def test_under_mlflow_run_its_run_is_the_study(place, table, monkeypatch):
    given = place.client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    done = import_results(ResultsRequest(file=table("id,fold1\na,0.5\n"), name="project"))
    assert (done.view.run.info.run_id, done.view.run.info.run_name) == (given, "project")
    assert "MLFLOW_RUN_ID" not in os.environ


@pytest.fixture(scope="module")
def whole(place):
    """The study of a table that was imported without an interruption."""
    (place.folder / "whole.csv").write_text(WIDE)
    return import_results(ResultsRequest(file=place.folder / "whole.csv", name="0-whole"))


@pytest.mark.parametrize(  # of 7 runs: within the first fold, the first trial, the last trial
    ("runs_done", "kill"), [(0, KeyboardInterrupt), (3, RuntimeError), (6, KeyboardInterrupt)]
)
def test_an_interrupted_import_does_not_look_whole_and_is_gone_on_with(
    place, table, whole, monkeypatch, runs_done, kill
):
    request = ResultsRequest(file=table(WIDE), name=f"0-cut-{runs_done}")
    left = iter(range(runs_done))

    def finish(*arguments):
        if next(left, None) is None:
            raise kill("the power went")
        return original(*arguments)

    original = results._finish
    monkeypatch.setattr(results, "_finish", finish)
    with pytest.raises(kill):
        import_results(request)
    half = report.find_study(place.client, request.name)
    assert half.data.tags[tree.STATE] == ("interrupted" if kill is KeyboardInterrupt else "failed")
    assert half.info.status != "FINISHED"
    monkeypatch.setattr(results, "_finish", original)
    done = import_results(request)
    assert (done.known, done.view.run.info.run_id) == (False, half.info.run_id)
    assert (
        runs(place.client, done.view.run)[1:] == runs(place.client, whole.view.run)[1:]
    )  # apart from its name


def test_the_published_height_configurations_cannot_be_told_apart(place, project):
    """The raw p against VGG19 and what Holm leaves of them; without the table this test fails."""
    shared = Path(os.environ.get("MICROSEG_SHARED", project.parent / "shared"))
    request = ResultsRequest(
        file=shared / "reference" / "afm_cv_results.csv",
        name="afm",
        columns=Columns(
            where=("input=height",), metric_columns=("roc_auc",), id_columns=("architecture", "depth", "loss")
        ),
    )
    view = import_results(request).view
    assert (len(view.ranked), view.folds, view.ranked[0].params["architecture"]) == (11, 5, "VGG19")
    trial = place.client.get_run(view.ranked[0].run_id)
    assert {"cv/roc_auc_mean", "cv/dice_mean", "cv/dice_std"} <= set(trial.data.metrics)
    found = against([row.scores for row in view.ranked], 0, 1 / (view.folds - 1))
    p = {row.name: float(f"{one.p:.2g}") for row, one in zip(view.ranked[1:], found, strict=True)}
    stated = {
        "VGG16 5 dice_loss": 0.69,
        "Xception 5 dice_loss": 0.16,
        "U-net 5 log cosh dice": 0.18,
        "U-net 5 dice_loss": 0.041,
        "U-net 2 dice_loss": 0.014,
    }
    assert {name: p[name] for name in stated} == stated
    assert holm([one.p for one in found]).min() > 0.05


def test_the_command_shows_the_leaderboard_and_how_to_go_on(called, table):
    code, out, err = called(
        "import-results", table(LONG), "--name", "shown", "--metric-columns", "roc_auc", "--where", "fold=1"
    )
    assert (code, err) == (0, "")
    assert "imported: study 'shown' with 2 configurations, 2 with all 1 folds" in out
    assert "microseg report shown" in out
    assert (
        "was there already"
        in called(
            "import-results",
            table(LONG),
            "--name",
            "shown",
            "--metric-columns",
            "roc_auc",
            "--where",
            "fold=1",
        )[1]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.csv", "--name", "x"], "absent.csv: no such file"),
        (["t.csv", "--name", "a/b"], "study name 'a/b'"),
        (["t.csv", "--name", "x", "--metric", "d[1]"], "metric 'd[1]'"),
        (["t.csv", "--name", "x", "--test-to-train", "-1"], "test_to_train"),
        (["t.csv", "--name", "x", "--fold-columns", "one"], "no column 'one'"),
        (["t.csv"], "Missing option '--name'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(called, place, arguments, said):
    (place.folder / "t.csv").write_text(WIDE)
    code, _, err = called("import-results", *arguments)
    assert code == 2
    assert said in err
    assert err.startswith("microseg: ") and err.count("\n") == 1


def test_reading_a_table_loads_no_framework():
    code = "import sys, microseg.importing.results; print([n for n in ('tensorflow', 'keras', 'ray') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
