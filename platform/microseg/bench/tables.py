"""What was measured, as tables for a terminal."""

from __future__ import annotations

from rich.table import Table

from microseg.bench.projection import Projection
from microseg.bench.run import Bench, Rate
from microseg.search.spending import duration


def tables(found: Bench) -> list[Table]:
    """Return one table for each thing that was measured."""
    return [_machine(found), _speeds(found), _start(found), _projection(found.projection)]


def _two_columns(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    return table


def _machine(found: Bench) -> Table:
    machine, table = found.machine, _two_columns("this machine")
    table.add_row("processor", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB")
    table.add_row("GPU", ", ".join(machine["gpus"]) or "none")
    table.add_row("precision", machine["precision"].removeprefix("mixed_"))
    table.add_row("product of two matrices", f"{found.product} GFLOP/s")
    return table


def _speeds(found: Bench) -> Table:
    config = found.config
    network = ", ".join(f"{name} {value}" for name, value in config.model.params.items())
    table = Table(
        title=f"{config.model.name}, {network}: {found.gflop:.1f} GFLOP for a tile of {config.tile} x "
        f"{config.tile}, batches of {config.batch_size}; median (range)",
        title_justify="left",
    )
    columns = ("images/s", "bare network, images/s", "platform / bare", "GFLOP/s", "of the product")
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left")
    for name, rate in (("training, augmented", found.training), ("tiled prediction", found.prediction)):
        table.add_row(name, *_cells(rate))
    return table


def _cells(rate: Rate) -> tuple[str, ...]:
    return str(rate.platform), str(rate.bare), str(rate.share), f"{rate.gflops:.0f}", f"{rate.peak:.0%}"


def _start(found: Bench) -> Table:
    title = f"a tiny search, from its command to its candidate: {found.start_seconds:.1f} s"
    table = Table("phase", title=title, title_justify="left")
    table.add_column("seconds", justify="right")
    for label, seconds in found.start.items():
        table.add_row(label, f"{seconds:.1f}")
    return table


def _projection(study: Projection) -> Table:
    how = "timed steps" if study.measured else "counted operations"
    table = _two_columns(
        f"a study on {study.data}: {study.images} images, {study.trials} trials, {study.folds} folds "
        f"(by {how} of {study.drawn} configurations of its space)"
    )
    table.add_row("a fold, all epochs", duration(study.fold))
    table.add_row("every fold of every trial", duration(study.whole))
    table.add_row("with ASHA, if each rung ends its share", duration(study.searched))
    table.add_row("not counted", "what patience and the race over folds save")
    return table
