"""From an image to its mask: the one code path of batch prediction, REST and notebooks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from microseg import runtime
from microseg.components import bind
from microseg.data.files import content_hash
from microseg.data.preprocess import PREPROCESSING, output_channels
from microseg.errors import MicrosegError, one_line
from microseg.instances import Labels, Method, label_objects, method_of
from microseg.models import UNREADABLE, folded, grid_of, load_saved
from microseg.serving.background import skipping_flat
from microseg.serving.card import CARD, ModelCard
from microseg.serving.channels import Image, checked
from microseg.serving.masks import Mask, Probability, pieces, to_mask
from microseg.serving.speed import Room, fastest_batch_size, fixed_batch_size, is_large, unlimited
from microseg.serving.symmetries import over_symmetries
from microseg.tiling import Grid, Predict, Region, Sliced, predict_region, predict_tiled

MEMBERS = "*.keras"


class Segmenter:
    """A model directory, loaded: its card and one network per fold, whose probabilities are averaged.

    Parameters
    ----------
    directory : Path
        Holds ``card.json`` and one or more ``.keras`` files; not needed afterwards.

    Attributes
    ----------
    card : ModelCard
        What the model knows about itself.
    digest : str
        What tells this model from another: the sha256 of its card and its networks.

    Raises
    ------
    MicrosegError
        If the directory holds no readable model, or `microseg.serving.speed.fixed_batch_size` refuses.
    """

    def __init__(self, directory: Path) -> None:
        self.card = ModelCard.read(directory)
        runtime.grow_gpu_memory()
        self._members = [_load(path) for path in sorted(directory.glob(MEMBERS))]
        if not self._members:
            raise MicrosegError(f"{directory}: no {MEMBERS} file; this is not a complete microseg model")
        paths = [directory / CARD, *sorted(directory.glob(MEMBERS))]
        self.digest = content_hash(path.read_bytes() for path in paths)
        self._preprocess = bind(self.card.config.preprocess, PREPROCESSING, "preprocess")
        # A model server calls from several threads; one image at a time keeps the memory flat.
        self._lock = threading.Lock()
        self._fixed, self._fastest = fixed_batch_size(), 0
        self._resident: dict[int, int] = {}

    def probability(self, image: Image, tta: bool = False) -> Probability:
        """Predict a whole image, in tiles.

        The same image gives the same numbers each time; see `microseg.serving.speed` for other processes.

        Parameters
        ----------
        image : ndarray, shape (height, width, channels)
            As the file stores it (uint8, uint16 or float32), not preprocessed. A grey image is
            repeated for a colour model; a colour image with equal channels is taken as grey.
        tta : bool
            Whether to average over the 8 symmetries of a square (test-time augmentation), which takes eight
            times as long; see `microseg.serving.symmetries`.

        Returns
        -------
        ndarray of float32, shape (height, width, classes)
            The mean of the networks' probabilities, in [0, 1].

        Raises
        ------
        MicrosegError
            If the image is empty, not finite or has the wrong number of channels.
        """
        prepared = self._preprocess(checked(image, self.card))
        with self._lock:
            return predict_tiled(
                prepared,
                self._predictor(tta),
                grid=self.grid,
                batch_size=self.batch_size(prepared.shape),
                fixed=self._fixed is not None,
            )

    def rows(
        self, prepared: Sliced, region: Region, *, batch_size: int, tta: bool = False, flat: float = 0.0
    ) -> Iterator[Probability]:
        """Predict a part of a preprocessed image of any size, a few rows at a time.

        Parameters
        ----------
        prepared : array-like of float32, (height, width, channels)
            What is read by slices, see `microseg.serving.large.Prepared`.
        region : tuple of slice
            Rows and columns to predict.
        batch_size : int
            See the method of that name.
        tta : bool
            See `probability`.
        flat : float
            Tiles whose values are less than this apart are background without a question to the networks.

        Yields
        ------
        ndarray of float32, shape (rows, columns of the region, classes)
            From the first row of the region to its last, as `probability` has them.
        """
        predict = self._predictor(tta)
        return predict_region(
            prepared,
            skipping_flat(predict, flat, self.maps) if flat else predict,
            grid=self.grid,
            region=region,
            batch_size=batch_size,
            fixed=self._fixed is not None,
        )

    @property
    def grid(self) -> Grid:
        """How tiles lie on an image."""
        return grid_of(self.card.config, self.card.halo)

    @property
    def maps(self) -> int:
        """How many probability maps there are: one, or the background's and one per class."""
        return int(self._members[0].output_shape[-1])

    def batch_size(self, shape: tuple[int, ...], room: Room = unlimited) -> int:
        """Return the most tiles per call: fixed, as in training for a small image, or the fastest.

        Parameters
        ----------
        shape : tuple of int
            Height, width and channels of the preprocessed image.
        room : callable
            See `microseg.serving.speed.fastest_batch_size`; asked at the first large image only.
        """
        config = self.card.config
        if self._fixed is not None:
            return self._fixed
        if not is_large(shape, config.tile):
            return config.batch_size // config.accumulation
        if not self._fastest:
            tile = np.zeros((config.tile, config.tile, shape[-1]), np.float32)
            self._fastest = fastest_batch_size(self._predict, tile, room=room)
        return self._fastest

    def warm(self, shape: tuple[int, ...], room: Room = unlimited) -> tuple[int, int]:
        """Call the networks as an image of that shape will.

        Parameters
        ----------
        shape : tuple of int
            Height, width and channels of an image.
        room : callable
            See `batch_size`.

        Returns
        -------
        tuple of int
            The image's `batch_size`, and the most bytes that the process had held, for whatever reason, when
            so many tiles were called for the first time: with all that this call compiles and keeps.
        """
        config = self.card.config
        channels = output_channels(config.preprocess, self.card.channels)
        size = self.batch_size((*shape[:2], channels), room)
        if size not in self._resident:
            self._predict(np.zeros((size, config.tile, config.tile, channels), np.float32))
            self._resident[size] = runtime.peak_memory()
        return size, self._resident[size]

    @property
    def method(self) -> Method:
        """How objects are told apart in parts of an image, as `label` does in one piece.

        The method is given the foreground's probability, or, where the card says nothing, the mask, as
        (height, width, 1).
        """
        if self.card.instances is not None:
            return method_of(self.card.instances)
        return Method(lambda mask: pieces(mask[..., 0]))

    def _predictor(self, tta: bool) -> Predict:
        return over_symmetries(self._predict) if tta else self._predict

    def segment(self, image: Image, tta: bool = False) -> Mask:
        """Return the mask of a whole image, see `probability` and `to_mask`.

        Raises
        ------
        MicrosegError
            As `probability`.
        """
        return to_mask(self.probability(image, tta), self.card.config.threshold)

    def label(self, probability: Probability) -> Labels:
        """Tell objects apart as the card says; where it does not, each connected piece of a class is one.

        Parameters
        ----------
        probability : ndarray of float32, shape (height, width, classes)
            See the method of that name.

        Returns
        -------
        ndarray of int32, shape (height, width)
            0 is background, objects are 1 to n.
        """
        if self.card.instances is not None:
            return label_objects(probability, self.card.instances)
        return pieces(to_mask(probability, self.card.config.threshold))

    @property
    def networks(self) -> tuple[Any, ...]:
        """The members of the ensemble."""
        return tuple(self._members)

    def _predict(self, batch: Image) -> Probability:
        total = self._members[0].predict_on_batch(batch)
        for member in self._members[1:]:
            total = total + member.predict_on_batch(batch)
        return np.asarray(total, np.float32) / np.float32(len(self._members))


def _load(path: Path) -> Any:
    try:
        return folded(load_saved(path))
    except UNREADABLE as error:
        raise MicrosegError(f"{path}: not a network that can be loaded ({one_line(error, 250)})") from error
