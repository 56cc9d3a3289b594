"""Paired folders: ``images/`` and ``masks/`` (or ``labels/``), also below ``train``, ``valid``, ``test``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from microseg.data.entries import (
    SPLITS,
    Entry,
    Listing,
    apply_group_regex,
    image_files,
    join_table,
    refuse_repeats,
    split_of,
)
from microseg.data.facts import Ledger
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError

MASK_FOLDERS = ("masks", "labels")
MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "-mask", "-label")


def recognise(source: Path) -> bool:
    """Say whether there is an ``images`` folder here, or below a folder named for a split."""
    return source.is_dir() and any(
        (folder / "images").is_dir() for folder in (source, *_split_folders(source))
    )


def read(source: Path, options: DataOptions, _ledger: Ledger) -> Listing:
    """Pair the images with their masks by name; facts come from ``manifest.csv`` beside the folders.

    Below split folders an item is named for its split too: ``train-0001``.

    Raises
    ------
    MicrosegError
        If an image has no mask, a mask no image, or a name occurs twice.
    """
    if options.mask_column:
        raise MicrosegError(
            f"{source}: mask column '{options.mask_column}' is stated, but masks are paired by name in"
            " folders;"
            " leave it out, or give a table with the paths of both files"
        )
    splits = _split_folders(source)
    if splits and (source / "images").is_dir():
        raise MicrosegError(
            f"{source}: both images/ and {splits[0].name}/ are here; keep one of the two layouts"
        )
    entries = [
        entry for folder in splits or [source] for entry in _pairs(folder, options, named=bool(splits))
    ]
    entries = join_table(entries, source, options)
    return Listing(apply_group_regex(entries, options.group_regex), options, source.name, str(source))


def _split_folders(source: Path) -> list[Path]:
    return sorted(
        path for path in source.iterdir() if path.name.lower() in SPLITS and (path / "images").is_dir()
    )


def _pairs(folder: Path, options: DataOptions, *, named: bool) -> list[Entry]:
    masks_folder = _masks_folder(folder)
    images = _by_stem(image_files(folder / "images"), options.channel_suffixes)
    masks = _masks_by_image(image_files(masks_folder), images)
    _check_complete(images, masks, folder / "images", masks_folder)
    split = split_of(folder.name, str(folder)) if named else None
    prefix = f"{split}-" if named else ""
    return [
        Entry(name=prefix + stem, images=files, mask=masks[stem], split=split)
        for stem, files in images.items()
    ]


def _masks_folder(folder: Path) -> Path:
    found = [folder / name for name in MASK_FOLDERS if (folder / name).is_dir()]
    if len(found) != 1:
        raise MicrosegError(
            f"{folder}: beside images/ there must be one of masks/ and labels/, found {len(found)}"
        )
    return found[0]


def _by_stem(files: Sequence[Path], suffixes: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Collect the files of each image: one, or one per channel suffix."""
    if not suffixes:
        refuse_repeats((file.stem for file in files), str(files[0].parent) if files else "")
        return {file.stem: (file,) for file in files}
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        suffix = next((suffix for suffix in suffixes if file.stem.endswith(suffix)), None)
        if suffix is None:
            raise MicrosegError(
                f"{file}: ends in none of the channel suffixes {', '.join(suffixes)}; rename it"
            )
        channels = found.setdefault(file.stem.removesuffix(suffix), {})
        if suffix in channels:
            raise MicrosegError(
                f"{file}: a second file for this channel beside {channels[suffix].name}; keep one"
            )
        channels[suffix] = file
    return {stem: _all_channels(stem, channels, suffixes) for stem, channels in found.items()}


def _all_channels(stem: str, channels: Mapping[str, Path], suffixes: Sequence[str]) -> tuple[Path, ...]:
    missing = [suffix for suffix in suffixes if suffix not in channels]
    if missing:
        present = next(iter(channels.values()))
        raise MicrosegError(f"{present}: the channel '{stem}{missing[0]}' is missing beside it; add the file")
    return tuple(channels[suffix] for suffix in suffixes)


def _masks_by_image(files: Sequence[Path], images: Mapping[str, object]) -> dict[str, Path]:
    """Name each mask after its image: by the same name, or the name before a usual mask suffix."""
    masks: dict[str, Path] = {}
    for file in files:
        stem = _image_stem(file.stem, images)
        if stem in masks:
            raise MicrosegError(
                f"{file}: a second mask for image '{stem}' beside {masks[stem].name}; keep one"
            )
        masks[stem] = file
    return masks


def _image_stem(stem: str, images: Mapping[str, object]) -> str:
    bare = (stem.removesuffix(suffix) for suffix in MASK_SUFFIXES if stem.endswith(suffix))
    return stem if stem in images else next((name for name in bare if name in images), stem)


def _check_complete(
    images: Mapping[str, Sequence[Path]], masks: Mapping[str, Path], folder: Path, masks_folder: Path
) -> None:
    lonely = sorted(images.keys() - masks.keys())
    if lonely:
        raise MicrosegError(
            f"{images[lonely[0]][0]}: no mask of this name in {masks_folder} ({len(lonely)} of {len(images)}"
            " images"
            " have none); add the masks or take the images out"
        )
    extra = sorted(masks.keys() - images.keys())
    if extra:
        raise MicrosegError(
            f"{masks[extra[0]]}: no image of this name in {folder} ({len(extra)} of {len(masks)} masks have"
            " none);"
            " add the images or take the masks out"
        )
