"""Pictures for people: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from microseg.data.masks import IGNORE
from microseg.metrics import classify
from microseg.training import Sample

# Okabe and Ito's colours, which colour-blind readers can tell apart.
TRUTH, PREDICTION = (0, 158, 115), (213, 94, 0)
ONLY_TRUTH, ONLY_PREDICTION, BOTH = (86, 180, 233), (230, 159, 0), (204, 121, 167)
WIDEST = 384
GAP = 6
CAPTION = 20


def panels(sample: Sample, threshold: float) -> NDArray[np.uint8]:
    """Draw an image, its truth, and what was predicted in tiles and in one piece, side by side.

    Parameters
    ----------
    sample : Sample
        A validation image with truth and predicted probability.
    threshold : float
        The cut at which a pixel becomes foreground.

    Returns
    -------
    ndarray (height, width, 3) of uint8
        Panels under a caption each: the image; the true outline on it; for each way of predicting, the
        foreground's probability in grey with the outline at the threshold. A panel is at most 384 pixels
        wide; small ones are enlarged by a whole number.
    """
    image = _display(sample.image)
    shown = {
        "image": image,
        "truth": _outline(image, (sample.truth > 0) & (sample.truth != 255), TRUTH),
        "predicted in tiles": _predicted(sample.probability, threshold),
    }
    if sample.whole is not None:
        shown["predicted in one piece"] = _predicted(sample.whole, threshold)
    return _row(shown)


def outlines(
    image: NDArray[np.generic], truth: NDArray[np.uint8], predicted: Mapping[str, NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Draw an image with the outline of its truth, and with that of each prediction, side by side.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        As in the file, or preprocessed.
    truth : ndarray of uint8, shape (height, width)
        Class indices; 255 is ignored.
    predicted : mapping of str to ndarray of uint8, shape (height, width)
        Class indices by the caption of the panel.

    Returns
    -------
    ndarray (height, width, 3) of uint8
        Panels of the size and colours of `panels`.
    """
    plain = _display(np.asarray(image, np.float32))
    shown = {"truth": _outline(plain, (truth > 0) & (truth != 255), TRUTH)}
    return _row(shown | {name: _outline(plain, mask > 0, PREDICTION) for name, mask in predicted.items()})


def _row(shown: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Set panels side by side, each under its caption."""
    fitted = [_captioned(_fit(panel), caption) for caption, panel in shown.items()]
    gap = np.full((fitted[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in fitted for part in (gap, panel)][1:], axis=1)


def overlay(sample: Sample, threshold: float) -> NDArray[np.uint8]:
    """Draw the true and the predicted outline on one image, at most 384 pixels wide.

    The truth is sky blue, the prediction orange; where they coincide the outline is purple.

    Parameters
    ----------
    sample, threshold
        As for `panels`.

    Returns
    -------
    ndarray (height, width, 3) of uint8
    """
    drawn = _fit(_display(sample.image)).copy()
    predicted = classify(sample.probability, threshold)
    truth = np.where(sample.truth == IGNORE, 0, sample.truth)
    outlines = [
        find_boundaries(_sampled(labels, drawn.shape[:2]), mode="thick") for labels in (truth, predicted)
    ]
    drawn[outlines[0]], drawn[outlines[1]] = ONLY_TRUTH, ONLY_PREDICTION
    drawn[outlines[0] & outlines[1]] = BOTH
    return drawn


def _sampled(labels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Enlarge or reduce labels to a shape, each pixel from the nearest one."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


def _predicted(probability: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Draw the probability of any foreground in grey, and the outline of what is decided from it."""
    chance = probability[..., 0] if probability.shape[-1] == 1 else 1.0 - probability[..., 0]
    grey = np.repeat((np.clip(chance, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return _outline(grey, _foreground(probability, threshold), PREDICTION)


def _captioned(panel: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    strip = Image.new("RGB", (panel.shape[1], CAPTION), "white")
    font = ImageFont.load_default(CAPTION - 5)
    ImageDraw.Draw(strip).text((panel.shape[1] // 2, 1), caption, fill="black", font=font, anchor="ma")
    return np.concatenate([np.asarray(strip), panel])


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


def _fit(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale a panel so that it is neither too large to load nor too small to see."""
    height, width, _ = panel.shape
    if width <= WIDEST:
        return np.asarray(panel.repeat(WIDEST // width, axis=0).repeat(WIDEST // width, axis=1))
    shape = (round(height * WIDEST / width), WIDEST, 3)
    return np.asarray(resize(panel, shape, anti_aliasing=True, preserve_range=True), dtype=np.uint8)
