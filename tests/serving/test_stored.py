"""What a registry keeps beside a model's networks does not run: neither code nor names from a server."""

from pathlib import Path
from types import SimpleNamespace

import mlflow.pyfunc
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from numpy.testing import assert_array_equal

import microseg
from microseg.errors import MicrosegError
from microseg.serving import stored
from microseg.serving.batch import load_segmenter
from microseg.serving.request import decode, encode_png
from microseg.serving.segmenter import Segmenter


@pytest.fixture
def planted(registered, tmp_path):
    """A registered model, fetched, with code planted at each place from which MLflow takes some."""
    marker, folder = tmp_path / "owned", tmp_path / "planted"
    download_artifacts("models:/cells/1", dst_path=str(folder))
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()\n"
    for file in ("pyfunc_model.py", "code/microseg/__init__.py", "code/microseg/serving/segmenter.py"):
        path = folder / file
        path.write_text(code + path.read_text())
    (folder / "code" / "sitecustomize.py").write_text(code)
    return SimpleNamespace(folder=folder, marker=marker)


def test_code_that_was_planted_beside_a_model_would_be_run_by_mlflow_itself(planted):
    """Else the tests below show nothing."""
    mlflow.pyfunc.load_model(str(planted.folder))
    assert planted.marker.exists()


def test_code_that_was_planted_beside_a_model_does_not_predict(planted, registered, image):
    expected = Segmenter(registered.directory).segment(image)
    assert_array_equal(load_segmenter(str(planted.folder)).segment(image), expected)
    assert not planted.marker.exists()


def test_a_model_is_served_by_the_code_that_is_installed(planted, tmp_path, image):
    served = stored.rebuild(str(planted.folder), tmp_path)
    own = Path(microseg.__file__).parent
    for file in (served / "code" / "microseg").rglob("*.py"):
        assert file.read_bytes() == (own / file.relative_to(served / "code" / "microseg")).read_bytes()
    assert (served / "pyfunc_model.py").read_bytes() == (own / "serving" / "pyfunc_model.py").read_bytes()
    answer = mlflow.pyfunc.load_model(str(served)).predict([{"image": encode_png(image[..., 0])}])[0]
    expected = load_segmenter(str(planted.folder)).segment(image)
    assert_array_equal(decode(answer.mask)[..., 0], expected)
    assert not planted.marker.exists()


def test_a_model_that_was_rebuilt_says_which_version_it_is(registered, tmp_path, image):
    served = stored.rebuild("models:/cells@champion", tmp_path)
    answer = mlflow.pyfunc.load_model(str(served)).predict([{"image": encode_png(image[..., 0])}])[0]
    assert (answer.model, answer.version) == ("cells", "1")


def test_names_that_a_server_makes_up_lead_nowhere_else(monkeypatch, tmp_path):
    asked = []

    class Hostile:
        def list_artifacts(self, folder):
            names = ("../../escaped.keras", "/etc/card.json", "..", "artifacts/model/code.py", "a/../b.keras")
            return [FileInfo(name, False, 1) for name in names]

        def download_artifacts(self, path, folder):
            asked.append((path, folder))

    monkeypatch.setattr(stored, "get_artifact_repository", lambda uri: Hostile())
    assert stored.fetch("models:/cells/1", tmp_path) == tmp_path / "artifacts" / "model"
    assert asked == [
        (f"artifacts/model/{name}", str(tmp_path)) for name in ("b.keras", "card.json", "escaped.keras")
    ]


@pytest.mark.parametrize("error", [MlflowException("no\nsuch"), OSError(28, "disk full"), ValueError("page")])
def test_a_server_that_fails_is_one_line(monkeypatch, tmp_path, error):
    def fail(uri):
        raise error

    monkeypatch.setattr(stored, "get_artifact_repository", fail)
    with pytest.raises(
        MicrosegError, match=r"models:/cells/1: cannot be loaded \(.*\); check the name"
    ) as caught:
        stored.fetch("models:/cells/1", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_network_of_a_registered_model_is_one_line(planted):
    network, *_ = sorted((planted.folder / "artifacts" / "model").glob("*.keras"))
    network.write_bytes(network.read_bytes()[:1000])
    with pytest.raises(MicrosegError, match=r"/planted: fold-000\.keras: not a network that can be"):
        load_segmenter(str(planted.folder))
