"""The command line: which networks, and what is printed."""

from __future__ import annotations

import argparse
import ast
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conformance import sources
from conformance.isolate import measure_apart, shares
from conformance.results import Results
from conformance.row import NOT_MEASURED, Row, cells, header, total
from conformance.sources import Network

DESCRIPTION = """Compile every network for several T, run it in stock ONNX Runtime, and compare it with its ANN.

With growing T the outputs must approach the ANN's: an error of 2 % or more at the longest T, or one that doesn't fall
with T, is reported. Inputs are made up unless they are given; random inputs and even random weights serve for that."""


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = argparse.ArgumentParser(
        prog="conformance", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("networks", nargs="*", metavar="FOLDER|MODEL[=DATA.npz]", help="networks, and inputs for them")
    made.add_argument("--zoo", action="store_true", help="the bundled networks")
    made.add_argument("--light", action="store_true", help="the large networks that the onnx package brings, light_*")
    made.add_argument("--onnx-tests", action="store_true", help="its small tests")
    made.add_argument("--export", action="store_true", help="networks exported from torch, scikit-learn and Keras")
    made.add_argument("--export-to", type=Path, metavar="DIR", help="keep them there, and take those that are there")
    made.add_argument("--match", metavar="TEXT", help="only networks with TEXT in their name")
    made.add_argument("--timesteps", type=int, nargs="+", default=[4, 16, 64, 256], metavar="T", help="4 16 64 256")
    made.add_argument("--samples", type=int, default=8, help="inputs to compare on, fewer for large networks (8)")
    made.add_argument("--calibration", type=int, default=32, help="inputs to calibrate on, likewise (32)")
    made.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of `snncc.Config`")
    made.add_argument("--jobs", type=int, default=1, help="networks at a time, which share the cores (1)")
    made.add_argument("--timeout", type=float, default=900, metavar="S", help="seconds for one network (900)")
    made.add_argument("--memory", type=float, default=8, metavar="GIB", help="gibibytes for one process (8)")
    made.add_argument("--markdown", action="store_true", help="print a Markdown table")
    made.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write everything that was found, row by row; rows that the file has from the same code and options are "
        "taken over, so an interrupted run goes on",
    )
    made.add_argument("--known", action="store_true", help="measure nothing: print the rows that --json has")
    return made


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return options given as NAME=VALUE, the value as Python writes it, or else a word.

    Raises:
        ValueError: one isn't of this form.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise ValueError(f"'{pair}' isn't of the form NAME=VALUE")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a row each and the total; return 1 if a network doesn't do as it should."""
    made = parser()
    options = made.parse_intermixed_args(arguments)
    timesteps = sorted(set(options.timesteps))
    if min(*timesteps, options.samples, options.calibration, options.jobs) < 1 or options.timeout <= 0:
        made.error("--timesteps, --samples, --calibration, --jobs and --timeout must be positive")
    with ExitStack() as stack:
        try:
            config = settings(options.set)
            networks = _networks(options, stack)
        except ValueError as error:
            made.error(str(error))
        if not networks:
            made.error("no network: name a folder or a file, or give --zoo, --light, --onnx-tests or --export")

        request = {
            "timesteps": timesteps,
            "samples": options.samples,
            "calibration": options.calibration,
            "config": config,
        }
        try:
            results = Results(options.json, {**request, "timeout": options.timeout, "memory": options.memory})
        except ValueError as error:
            made.error(str(error))
        measure = _known(results) if options.known else _measuring(results, request, options)
        rows = report(networks, measure, timesteps, jobs=options.jobs, markdown=options.markdown)
        print(f"code {results.code}; {' '.join(sys.argv[1:] if arguments is None else arguments)}")
    return 0 if all(row.good for row in rows) else 1


def _known(results: Results) -> Callable[[Network], Row]:
    return lambda network: results.known(network.name) or Row(network.name, status=NOT_MEASURED)


def _measuring(results: Results, request: Mapping[str, Any], options: argparse.Namespace) -> Callable[[Network], Row]:
    """Return what gives a network's row: the one of an earlier run, or a new one, which is kept."""
    free = shares(options.jobs)

    def measure(network: Network) -> Row:
        row = results.known(network.name)
        if row is not None:
            return row
        data = None if network.data is None else str(network.data)
        cores = free.get()
        row = measure_apart(
            network.name,
            {**request, "path": str(network.path), "data": data},
            timeout=options.timeout,
            memory=options.memory,
            cores=cores,
        )
        free.put(cores)
        results.keep(row)
        return row

    return measure


def _networks(options: argparse.Namespace, stack: ExitStack) -> list[Network]:
    networks = sources.given(options.networks)
    networks += sources.zoo() if options.zoo else []
    networks += sources.light() if options.light else []
    networks += sources.onnx_tests() if options.onnx_tests else []
    if options.export or options.export_to:
        folder = options.export_to or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        networks += sources.exported(folder)
    return [n for n in networks if not options.match or options.match in n.name]


def report(
    networks: Sequence[Network],
    measure: Callable[[Network], Row],
    timesteps: Sequence[int],
    *,
    jobs: int,
    markdown: bool,
) -> list[Row]:
    """Measure networks; print the table line by line, then what is to be said about its rows, then the total."""
    from environment import signature

    columns = header(timesteps)
    widths = [max(len(columns[0]), *(len(n.name) for n in networks)), 16, 5, 5, 7, 7, 7, 16, 3, 9]
    widths += [8] * (len(columns) - len(widths))

    def show(line: Sequence[str]) -> None:
        if markdown:
            print(f"| {' | '.join(line)} |", flush=True)
        else:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)

    show(columns)
    if markdown:
        show(["---"] * len(columns))
    rows = []
    for row in _measured(networks, measure, jobs):
        rows.append(row)
        if row.status != NOT_MEASURED:
            show(cells(row, timesteps))
    print()
    for row in rows:
        for remark in row.remarks():
            print(f"{'- ' if markdown else ''}{row.name}: {remark}")
    left = [row.name for row in rows if row.status == NOT_MEASURED]
    if left:
        print(f"{'- ' if markdown else ''}not measured: {', '.join(left)}")
    print(f"\n{total(rows)}\n{signature()}")
    return rows


def _measured(networks: Sequence[Network], measure: Callable[[Network], Row], jobs: int) -> Iterator[Row]:
    """Yield the rows in the order of the networks, each as soon as it is there."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(measure, networks)
