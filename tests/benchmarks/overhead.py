"""What the platform costs over a bare ``model.fit`` of the same network on the same data.

Each repeat runs ``microseg search`` (1 trial, 1 fold, with Ray, MLflow, validation of whole images and
pictures) and then ``bare_fit.py``, each in a process of its own, with the same fold, preprocessing,
architecture, loss, optimizer, batch, steps, epochs, precision and threads, and without augmentation. Both
find the decoded images in the cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import yaml
from measure import Measured, Recipe, environment, search_once, spread, terminal, timed, write_json
from rich.table import Table

from microseg import runtime
from microseg.config import SearchConfig, TrialConfig, parse
from microseg.data.synthetic import write_demo
from microseg.storage import cache

ROWS = {
    "wall time, s": "wall",
    "start-up, s": "startup",
    "training, s": "trained",
    "wall minus start-up, s": "after_startup",
    "first epoch, s": "first_epoch",
    "median later epoch, s": "epoch",
    "peak memory, MiB": "peak_memory_mib",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="new or empty folder for all that is written"
    )
    parser.add_argument("--data", type=Path, help="data set; by default synthetic cells")
    parser.add_argument("--images", type=int, default=48, help="number of synthetic images")
    parser.add_argument("--size", type=int, default=256, help="side of a synthetic image, pixels")
    parser.add_argument("--tile", type=int, default=256, help="side of a training patch, pixels")
    parser.add_argument("--depth", type=int, default=3, help="levels of the U-Net")
    parser.add_argument("--filters", type=int, default=16, help="filters of its first level")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the bare training is to last")
    parser.add_argument("--epochs", type=int, help="epochs, in place of --minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def settings(given: argparse.Namespace, epochs: int) -> TrialConfig:
    values = {
        "model": {"name": "unet", "params": {"depth": given.depth, "filters": given.filters}},
        "augment": {"name": "none"},
        "tile": given.tile,
        "epochs": epochs,
        "patience": epochs,  # both train all epochs
        "precision": given.precision,
    }
    return parse(TrialConfig, values, "overhead")


def search_config(config: TrialConfig) -> SearchConfig:
    return SearchConfig(space=config.model_dump(mode="json"), trials=1, folds=1, asha=None)


def prepared(data: Path, config: TrialConfig) -> Recipe:
    """Divide the data as the search will, which also fills the cache that both sides read."""
    runtime.load_tensorflow()
    from microseg import study

    request = study.Request(name="overhead", data=data, config=search_config(config))
    found = study.prepare(request)
    return Recipe(
        config=config,
        manifest=found.development,
        fold=found.folds[0],
        cache=cache(),
        threads=os.cpu_count() or 1,  # what Ray gives a trial that runs alone
    )


def bare_once(recipe: Recipe, name: str, workdir: Path) -> Measured:
    given, output = workdir / f"{name}-recipe.json", workdir / f"{name}.json"
    given.write_text(recipe.model_dump_json(), encoding="utf-8")
    script = Path(__file__).with_name("bare_fit.py")
    start, end = timed([str(script), str(given), str(output)], workdir)
    inside = Measured.model_validate_json(output.read_bytes())
    return inside.model_copy(update={"start": start, "end": end})


def calibrated(given: argparse.Namespace, recipe: Recipe, workdir: Path) -> int:
    """Return the epochs that a bare training of ``--minutes`` has."""
    if given.epochs:
        return int(given.epochs)
    trial = bare_once(recipe.model_copy(update={"config": settings(given, 4)}), "calibration", workdir)
    return max(2, 1 + round((60 * given.minutes - trial.first_epoch) / trial.epoch))


def figures(platform: list[Measured], bare: list[Measured]) -> list[dict[str, Any]]:
    rows = []
    for label, name in ROWS.items():
        ours, reference = ([float(getattr(run, name)) for run in side] for side in (platform, bare))
        ratios = [one / other for one, other in zip(ours, reference, strict=True)]
        rows.append({"quantity": label, "platform": ours, "bare": reference, "ratio": ratios})
    return rows


def table(rows: list[dict[str, Any]], title: str) -> Table:
    shown = Table("median (range)", title=title, title_justify="left")
    for column in ("platform", "bare model.fit", "platform / bare, by pairs"):
        shown.add_column(column, justify="right")
    for row in rows:
        digits = 0 if "MiB" in row["quantity"] else 2
        sides = [spread(row[side], digits) for side in ("platform", "bare")]
        shown.add_row(row["quantity"], *sides, spread(row["ratio"], 3))
    return shown


def main() -> None:
    given = arguments()
    workdir = given.workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment(workdir))  # before TensorFlow and MLflow read it
    data = (
        given.data or write_demo(workdir / "data", images=given.images, sessions=8, size=given.size)
    ).resolve()
    recipe = prepared(data, settings(given, 1))
    config = settings(given, calibrated(given, recipe, workdir))
    space = workdir / "space.yaml"
    space.write_text(yaml.safe_dump(search_config(config).model_dump(mode="json")), encoding="utf-8")
    recipe, console = recipe.model_copy(update={"config": config}), terminal()
    platform, bare, load = [], [], []
    for number in range(1, given.repeats + 1):
        load.append(os.getloadavg()[0])
        platform.append(search_once(data, space, f"overhead-{number}", workdir).measured)
        bare.append(bare_once(recipe, f"bare-{number}", workdir))
        console.print(
            f"repeat {number}: platform {platform[-1].wall:.1f} s, bare {bare[-1].wall:.1f} s, load before {load[-1]:.1f}"
        )
    rows = figures(platform, bare)
    fold = recipe.fold
    title = f"{len(fold.train)} + {len(fold.valid)} images, {config.epochs} epochs, repeats: {given.repeats}"
    console.print(table(rows, title))
    costs = {row["quantity"]: 100 * (statistics.median(row["ratio"]) - 1) for row in rows}
    for label in ("training, s", "wall minus start-up, s"):
        console.print(f"overhead of {label.removesuffix(', s')}: {costs[label]:+.1f} %", highlight=False)
    write_json(
        given.json,
        {"config": config.model_dump(mode="json"), "title": title, "rows": rows, "load_before": load},
    )


if __name__ == "__main__":
    main()
