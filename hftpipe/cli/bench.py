"""`hftpipe bench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hftpipe.bench.figures import PARTS, Settings
from hftpipe.cli.options import format_option, option

if TYPE_CHECKING:
    from hftpipe.bench.report import Results

ROWS_DEFAULT = 10_000_000
ROWS_QUICK = 1_000_000
REPETITIONS_DEFAULT = 3


@click.command(short_help="Speed, latency, memory and recovery, measured on this machine.")
@option("--quick", is_flag=True, help="All parts in less than two minutes: a tenth of the rows, once.")
@option(
    "--rows",
    type=click.IntRange(min=1),
    help=f"Transactions of the large file: {ROWS_DEFAULT:,}, or {ROWS_QUICK:,} with --quick.",
)
@option(
    "--repetitions",
    type=click.IntRange(1, 100),
    help=f"How often each thing is measured: {REPETITIONS_DEFAULT}, or once with --quick.",
)
@option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone; may be repeated.")
@option(
    "--designs",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder of programs that do the same in other ways, to compare with.",
)
@option("--json", "json_", type=click.Path(dir_okay=False, path_type=Path), help="File for the results.")
@option("--charts", type=click.Path(file_okay=False, path_type=Path), help="Folder for charts, as SVG.")
@option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, writable=True, path_type=Path),
    help="Where logs and stores are written meanwhile, on the disk to be measured; your temporary folder.",
)
@format_option("table")
def bench(
    quick: bool,
    rows: int | None,
    repetitions: int | None,
    only: Sequence[str],
    designs: Path | None,
    json_: Path | None,
    charts: Path | None,
    folder: Path | None,
    format_: str,
) -> None:
    """Measure the whole pipeline on this machine, with servers and folders of its own.

    Each figure is the median of its repetitions, with the smallest and the largest; ratios are taken within one
    run. All of it takes about half an hour and some GB of disk. Ends with 1 when a part fails, or a design comes to
    other balances.

    \b
    Examples:
      hftpipe bench --quick
      hftpipe bench --only throughput --only latency --json results.json --charts .
    """
    from hftpipe.bench.ground import ground
    from hftpipe.bench.interruption import Interruption
    from hftpipe.bench.machine import machine
    from hftpipe.bench.parts import measured
    from hftpipe.bench.report import Results, now
    from hftpipe.cli.output import say
    from hftpipe.cli.signals import ending_signals

    interruption = Interruption(ending_signals())
    interruption.watch()
    _check_target(json_)
    settings = Settings(
        rows or (ROWS_QUICK if quick else ROWS_DEFAULT), designs.absolute() if designs else None
    )
    times = repetitions or (1 if quick else REPETITIONS_DEFAULT)
    with ground(folder, quick=quick, repetitions=times, say=say, interruption=interruption) as place:
        taken, told = now(), machine(place.folder)
        results = Results(list(measured(place, settings, only)), told, quick, taken)
    try:
        _save(results, json_, charts)
    finally:  # a full disk must not take half an hour's figures along
        _write(results, format_)
    if results.problems:
        raise click.exceptions.Exit(1)


def _check_target(path: Path | None) -> None:
    """Says now, not after half an hour, that the results cannot be written."""
    from hftpipe.errors import UsageError

    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written: its folder is not there")


def _save(results: "Results", path: Path | None, charts: Path | None) -> None:
    from hftpipe.bench.charts import save
    from hftpipe.bench.report import dump

    if path is not None:
        path.write_bytes(dump(results))
    if charts is not None:
        save(results.figures, charts)


def _write(results: "Results", format_: str) -> None:
    from hftpipe.bench.report import ROW_COLUMNS, TABLE_COLUMNS, notes, row_of, table_rows
    from hftpipe.cli.output import say, write

    if format_ == "table":
        for name, value in results.machine.items():
            click.echo(f"{name}: {value}")
        click.echo()
        write(
            TABLE_COLUMNS,
            ([row[name] for name in TABLE_COLUMNS] for row in table_rows(results.figures)),
            format_,
        )
        click.echo()
        for line in notes(results.figures):
            click.echo(line)
    else:
        write(
            ROW_COLUMNS,
            ([row[name] for name in ROW_COLUMNS] for row in map(row_of, results.figures)),
            format_,
        )
    for problem in results.problems:
        say(f"hftpipe: {problem}")
