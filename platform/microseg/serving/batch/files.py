"""Which files are images, and where their masks go."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from microseg import storage
from microseg.data.files import identity
from microseg.data.images import check_suffix
from microseg.data.streams import ZARR_MARKS, is_streamed
from microseg.errors import MicrosegError

SUFFIXES = {"png": ".png", "ome-tiff": ".ome.tiff", "ome-zarr": ".ome.zarr"}


def images_of(source: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the images of a folder, or the one image, and the files that are none.

    Parameters
    ----------
    source : str
        Local path or ``s3://`` URI, as `storage.normalise` spells it. The folder of an OME-Zarr is an image;
        on S3, its name ends in ``.zarr``.

    Raises
    ------
    MicrosegError
        If there is no image.
    """
    if storage.is_remote(source):
        zarrs = [folder for folder in storage.folders(source) if folder.endswith(".zarr")]
        files = _remote_files(source, beside=zarrs)
        if any(PurePosixPath(file).name in ZARR_MARKS for file in files):
            return [source], ()
    else:
        zarrs = _zarrs(Path(source))
        files = [] if zarrs == [source] else storage.listing(source)
    images = sorted([*zarrs, *(file for file in files if check_suffix(Path(PurePosixPath(file).name)))])
    if not images:
        raise MicrosegError(
            f"{source}: no image among {len(files)} file(s); give PNG, TIFF or JPEG files, or OME-Zarr"
        )
    return images, tuple(file for file in files if file not in set(images))


def _remote_files(source: str, beside: list[str]) -> list[str]:
    """Return the files of a remote folder; there may be none beside OME-Zarr folders."""
    try:
        return storage.listing(source)
    except MicrosegError:
        if not beside:
            raise
        return []


def _zarrs(source: Path) -> list[str]:
    """Return the OME-Zarr images of a folder, or the one that it is."""
    if not source.is_dir():
        return []
    if is_streamed(source):
        return [str(source)]
    visible = (path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [str(path) for path in visible if is_streamed(path)]


def stem(image: str) -> str:
    """Return an image's name without suffix; ``.ome`` belongs to the suffix."""
    return PurePosixPath(image).stem.removesuffix(".ome")


def mask_of(image: str, target: str, suffix: str) -> str:
    """Return where the mask of an image goes."""
    return storage.join(target, f"{stem(image)}{suffix}")


def workplace(target: str) -> Path:
    """Return where unfinished work lies: beside the masks, or on this machine if those are remote."""
    if not storage.is_remote(target):
        return Path(target)
    place = storage.home() / "predictions" / hashlib.sha256(target.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return place


def state_of(image: str) -> str:
    """Return what tells an image from another of the same name, without reading it."""
    return storage.state(image) if storage.is_remote(image) else identity(Path(image))


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold a workplace: two runs would write the same unfinished files.

    Raises
    ------
    MicrosegError
        If another run holds it.
    """
    path = place / ".microseg-predict.lock"
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout as error:
        hint = "wait for it, or give another output folder"
        raise MicrosegError(f"{place}: another 'predict' writes there; {hint}") from error
    with lock:
        yield
        path.unlink(missing_ok=True)


def check_targets(images: list[str], target: str) -> None:
    """Refuse masks that would lose a file, and make the folder.

    Parameters
    ----------
    images : list of str
        See `images_of`.
    target : str
        The masks' folder.

    Raises
    ------
    MicrosegError
        If two images would have the same mask, the images lie there, or there can be no such folder.
    """
    name, count = Counter(map(stem, images)).most_common(1)[0]
    if count > 1:
        mask = storage.join(target, name)
        raise MicrosegError(f"{mask}.*: {count} images differ only in their suffix; rename one of them")
    if any(image.rpartition("/")[0] == target for image in images):
        raise MicrosegError(
            f"{target}: the images lie there, masks would be taken for images; give another output folder"
        )
    if not storage.is_remote(target):
        try:
            Path(target).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MicrosegError(
                f"{target}: cannot be made ({error.strerror}); give a writable folder"
            ) from error
