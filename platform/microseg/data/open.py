"""Open a data set: recognise its format, check every image and mask, and return its manifest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from microseg.data import dsb2018, folders, table
from microseg.data.entries import Entry, Format, Listing, refuse_repeats
from microseg.data.facts import ImageFacts, Ledger, MaskFacts
from microseg.data.files import absolute
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import interpret
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.storage.mirror import local

__all__ = ["FORMATS", "DataOptions", "open_dataset"]

# The first format that recognises a path reads it.
FORMATS: dict[str, Format] = {
    "folders": Format(
        folders.recognise,
        folders.read,
        "images/ and masks/ (or labels/), also below train/, valid/ and test/",
    ),
    "dsb2018": Format(dsb2018.recognise, dsb2018.read, "one folder per image with images/ and masks/"),
    "table": Format(table.recognise, table.read, "a CSV or YAML table of image and mask paths"),
}
# Decoding releases the interpreter lock; each thread holds one image in memory.
_READERS = 4


def open_dataset(place: str | Path, options: DataOptions, cache: Path) -> Manifest:
    """Open a data set and check all of it.

    Every file is read once; what was found is kept in the cache, so that opening unchanged files
    again (same size, same modification time) only looks at their names.

    Parameters
    ----------
    place : str or Path
        A folder in one of the layouts of ``FORMATS``, or a table; an ``s3://`` URI of one is copied to the
        cache, each object once.
    options : DataOptions
        What the files do not say themselves.
    cache : Path
        Folder on this machine for facts and merged label maps.

    Returns
    -------
    Manifest
        The checked data set, with absolute paths.

    Raises
    ------
    MicrosegError
        In one line, naming the file, if anything in the data set cannot be used.
    """
    cache = absolute(cache)
    source = local(place, cache)
    ledger = Ledger(cache, str(source))
    listing = _format(source).read(source, options, ledger)
    if not listing.entries:
        raise MicrosegError(f"{source}: no images; PNG, TIFF and JPEG files are read")
    refuse_repeats((entry.name for entry in listing.entries), str(source))
    images, masks = _examine(listing, ledger)
    ledger.save()
    return _manifest(listing, images, masks)


def _format(source: Path) -> Format:
    if not source.exists():
        raise MicrosegError(f"{source}: no such file or folder; give a data set")
    for candidate in FORMATS.values():
        if candidate.recognise(source):
            return candidate
    layouts = "; ".join(candidate.layout for candidate in FORMATS.values())
    raise MicrosegError(f"{source}: not a data set; one of these is needed: {layouts}")


def _examine(listing: Listing, ledger: Ledger) -> tuple[list[ImageFacts], list[MaskFacts]]:
    axes = listing.options.axes

    def both(entry: Entry) -> tuple[ImageFacts, MaskFacts]:
        image, mask = ledger.image(entry.images, axes), ledger.mask(entry.mask)
        if (image.height, image.width) != (mask.height, mask.width):
            raise MicrosegError(
                f"{entry.mask}: {mask.width} x {mask.height} pixels, but its image {entry.images[0].name} has"
                f" {image.width} x {image.height}; masks and images must have the same size"
            )
        return image, mask

    with ThreadPoolExecutor(_READERS) as pool:
        images, masks = zip(*pool.map(both, listing.entries), strict=True)
    return list(images), list(masks)


def _manifest(listing: Listing, images: list[ImageFacts], masks: list[MaskFacts]) -> Manifest:
    entries, options = listing.entries, listing.options
    reading = interpret({entry.mask: facts for entry, facts in zip(entries, masks, strict=True)}, options)
    items = (_item(*row) for row in zip(entries, images, masks, strict=True))
    return Manifest(
        name=listing.name,
        source=listing.source,
        items=tuple(sorted(items, key=lambda item: item.name)),
        channels=_channels(entries, images),
        axes=options.axes,
        pixel_size_um=options.pixel_size_um,
        **reading._asdict(),
    )


def _item(entry: Entry, image: ImageFacts, mask: MaskFacts) -> Item:
    return Item(
        name=entry.name,
        images=entry.images,
        mask=entry.mask,
        group=entry.group or entry.name,
        stratum=entry.stratum,
        split=entry.split,
        height=image.height,
        width=image.width,
        hashes=(*image.hashes, mask.hash),
    )


def _channels(entries: list[Entry], images: list[ImageFacts]) -> int:
    """Return the set's channel count; grey images among colour ones are read as colour."""
    counts = {facts.channels: entry for entry, facts in zip(entries, images, strict=True)}
    if len(counts) == 1 or set(counts) == {1, 3}:
        return max(counts)
    (first, one), (second, other) = sorted(counts.items())[:2]
    raise MicrosegError(
        f"{other.images[0]}: {second} channels, but {one.images[0].name} has {first};"
        " give all images the same channels (grey among RGB is fine)"
    )
