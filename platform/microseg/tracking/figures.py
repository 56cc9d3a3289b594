"""Pictures for people: image, truth and prediction side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from microseg.training import Sample

# Okabe and Ito's colours, which colour-blind readers can tell apart.
TRUTH, PREDICTION = (0, 158, 115), (213, 94, 0)
WIDEST = 384
GAP = 6


def triptych(sample: Sample, threshold: float) -> NDArray[np.uint8]:
    """Draw image | image with the true outline | probability with the predicted outline.

    Parameters
    ----------
    sample : Sample
        A validation image with truth and predicted probability.
    threshold : float
        The cut at which a pixel becomes foreground.

    Returns
    -------
    ndarray (height, 3 * width + gaps, 3) of uint8
        A panel is at most 384 pixels wide; small ones are enlarged by a whole number.
    """
    image = _display(sample.image)
    predicted = _foreground(sample.probability, threshold)
    chance = (
        sample.probability[..., 0] if sample.probability.shape[-1] == 1 else 1.0 - sample.probability[..., 0]
    )
    grey = np.repeat((np.clip(chance, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    panels = [image, _outline(image, (sample.truth > 0) & (sample.truth != 255), TRUTH)]
    panels.append(_outline(grey, predicted, PREDICTION))
    gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
    return _fit(np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1), image.shape[1])


def _foreground(probability: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    if probability.shape[-1] == 1:
        return np.asarray(probability[..., 0] >= threshold)
    return np.asarray(probability.argmax(axis=-1) > 0)


def _display(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Stretch to 8 bits by percentiles; one channel as grey, three as colour, otherwise the first."""
    shown = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    low, high = np.percentile(shown, (0.5, 99.5))
    stretched = (shown - low) / max(float(high - low), 1e-6)
    return np.asarray(np.clip(stretched, 0, 1) * 255, dtype=np.uint8)


def _outline(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    drawn = image.copy()
    drawn[find_boundaries(mask, mode="inner")] = colour
    return drawn


def _fit(picture: NDArray[np.uint8], panel: int) -> NDArray[np.uint8]:
    """Scale a picture so that its panels are neither too large to load nor too small to see."""
    if panel <= WIDEST:
        times = WIDEST // panel
        return np.asarray(picture.repeat(times, axis=0).repeat(times, axis=1))
    shape = (round(picture.shape[0] * WIDEST / panel), round(picture.shape[1] * WIDEST / panel), 3)
    return np.asarray(resize(picture, shape, anti_aliasing=True, preserve_range=True), dtype=np.uint8)
