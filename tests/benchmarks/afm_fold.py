"""One fold of the AFM project's height images, trained as published, and its MCC beside the published one."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from measure import environment, terminal, write_json

# Tiryaki et al. 2022, DOI 10.1002/cyto.a.24533: MCC of height images, folds 1 to 5.
PUBLISHED = {
    (5, "log_cosh_dice"): (0.9293, 0.9328, 0.8849, 0.9200, 0.9360),
    (5, "dice"): (0.9129, 0.9265, 0.8912, 0.9176, 0.9327),
    (4, "dice"): (0.9227, 0.9188, 0.8587, 0.9395, 0.9164),
    (3, "dice"): (0.9222, 0.9089, 0.8408, 0.8694, 0.9251),
    (2, "dice"): (0.8829, 0.8876, 0.8292, 0.8554, 0.9069),
}
SHOWN = ("val/loss", "val/dice", "val/mcc", "train/loss", "train/learning_rate")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, masks/, manifest.csv")
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--loss", default="log_cosh_dice")
    parser.add_argument("--tile", type=int, default=256, help="side of the training patches (published: 512)")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=120, help="steps per epoch, 6 patches each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def configuration(given: argparse.Namespace) -> Any:
    """Return the published training: dropout, optimizer, schedule, stopping and augmentation."""
    from microseg.config import TrialConfig

    dropout = 0.5 if given.depth == 5 else 0.55
    network = {"depth": given.depth, "filters": 16, "dropout": dropout, "dropout_at": "junctions"}
    return TrialConfig.model_validate(
        {
            "model": {"name": "unet", "params": network},
            "loss": {"name": given.loss, "params": {"reduction": "batch"}},
            "optimizer": {"name": "adam", "params": {"learning_rate": 1e-3}},
            "schedule": {"name": "plateau", "params": {"factor": 0.1, "patience": 3, "minimum": 1e-8}},
            "augment": {"name": "afm"},
            "preprocess": {"name": "scale"},
            "monitor": "val/loss",
            "tile": given.tile,
            "batch_size": 6,
            "steps_per_epoch": given.steps,
            "epochs": given.epochs,
            "patience": 5,
        }
    )


def main() -> None:
    given, console = arguments(), terminal()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        os.environ.update(environment(work))
        from microseg import runtime

        runtime.load_tensorflow()
        runtime.threads(given.threads)
        from microseg.data.open import open_dataset
        from microseg.data.options import DataOptions
        from microseg.folds import given_fold
        from microseg.training import Progress, TrainingData, train_fold

        def report(progress: Progress) -> None:
            values = "  ".join(f"{name} {progress.metrics[name]:.4g}" for name in SHOWN)
            console.print(f"epoch {progress.epoch:3d}  {values}", highlight=False, soft_wrap=True)

        options = DataOptions(split_column="split_in_repo")  # the one fold that was published
        data = TrainingData(open_dataset(given.data, options, work / "cache"), work / "cache")
        (fold,) = given_fold(data.manifest)
        result = train_fold(configuration(given), data, fold, work, report)
    published = PUBLISHED.get((given.depth, given.loss), ())
    figures = {
        "depth": given.depth,
        "loss": given.loss,
        "state": result.state,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "published_mcc": published,
        **{name: value for name, value in result.metrics.items() if name.startswith("val/")},
    }
    for label, value in figures.items():
        console.print(f"{label:<24} {value}", highlight=False, markup=False, soft_wrap=True)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
