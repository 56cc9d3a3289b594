"""What a server allows, as its environment says."""

import pytest

from microseg.errors import MicrosegError
from microseg.serving.request.limits import PIXELS, ROOTS, Limits


def test_by_default_no_address_may_be_read_and_images_are_bounded(monkeypatch):
    monkeypatch.delenv(PIXELS, raising=False)
    monkeypatch.delenv(ROOTS, raising=False)
    assert Limits.from_environment() == Limits(pixels=2**26, roots=())


def test_the_environment_sets_both(monkeypatch):
    monkeypatch.setenv(PIXELS, "4096")
    monkeypatch.setenv(ROOTS, " file:///data/images , s3://lab/plates,")
    limits = Limits.from_environment()
    assert limits == Limits(pixels=4096, roots=("file:///data/images", "s3://lab/plates"))
    assert "more than 4096 pixels" in limits.exceeded


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (PIXELS, "many", "a whole number"),
        (PIXELS, "0", "greater than or equal to 1"),
        (ROOTS, "/data", "'/data' is no folder; give file:///FOLDER"),
        (ROOTS, "https://example.org/images", "is no folder"),
        (ROOTS, "file:///", "is no folder"),
        (ROOTS, "s3://", "is no folder"),
    ],
)
def test_what_cannot_be_kept_is_refused_when_the_server_starts(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(MicrosegError) as caught:
        Limits.from_environment()
    assert words in str(caught.value) and name in str(caught.value)
