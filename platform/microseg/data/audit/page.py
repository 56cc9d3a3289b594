"""An audit as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np

from microseg import pages
from microseg.data.arrays import image_array
from microseg.data.audit.findings import LEVELS, Finding
from microseg.data.audit.likeness import NEAR, SAME
from microseg.data.images import Array
from microseg.data.manifest import Manifest

_WIDEST = 180  # pixels of a thumbnail
_MOST = 120  # thumbnails: some 3 MB
_MEANING = {
    "refuse": "A score from this data would be wrong; no search starts.",
    "warn": "A score from this data is probably too good, or a class cannot be judged.",
    "note": "Worth knowing.",
}


def page(manifest: Manifest, cache: Path, findings: Sequence[Finding]) -> str:
    """Render findings as one HTML page, with the pairs of images that are alike side by side.

    Raises
    ------
    MicrosegError
        If a file has changed since the data set was checked.
    """
    return (
        pages.environment()
        .get_template("audit.html")
        .render(
            manifest=manifest,
            findings=findings,
            counts={level: sum(finding.level == level for finding in findings) for level in LEVELS},
            meaning=_MEANING,
            near=NEAR,
            same=SAME,
            thumbnails=_thumbnails(manifest, cache, findings),
        )
    )


def _thumbnails(manifest: Manifest, cache: Path, findings: Sequence[Finding]) -> dict[str, str]:
    """Draw each image of the pairs once, as a data URI."""
    names = [name for finding in findings for pair in finding.pairs for name in (pair.one, pair.other)]
    items = {item.name: item for item in manifest.items}
    return {
        name: _data_uri(image_array(items[name], manifest, cache)) for name in [*dict.fromkeys(names)][:_MOST]
    }


def _data_uri(image: Array) -> str:
    """Draw an image small, stretched from its 1st to its 99.8th percentile."""
    step = max(1, -(-max(image.shape[:2]) // _WIDEST))
    small = image[::step, ::step].astype(np.float32)
    small = small if small.shape[2] == 3 else small[..., :1]
    low, high = np.percentile(small, (1.0, 99.8))
    grey = np.clip((small - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
    png = imagecodecs.png_encode(
        np.ascontiguousarray(np.squeeze(grey, axis=2) if grey.shape[2] == 1 else grey)
    )
    return pages.data_address("png", bytes(png))
