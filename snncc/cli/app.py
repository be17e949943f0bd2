"""The root command: what all subcommands share, and how a failure ends.

0    done
1    an error, or an output that nobody reads any more
2    wrong usage
130  interrupted with Ctrl-C
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from snncc import __version__
from snncc.cli.compile import compile_command
from snncc.cli.eval import eval_command
from snncc.cli.events import events_command
from snncc.cli.inspect import inspect_command
from snncc.cli.options import SETTINGS, common_options
from snncc.cli.run import run_command
from snncc.cli.search import search_command
from snncc.cli.stream import stream_command
from snncc.cli.terminal import Terminal
from snncc.cli.view import view_command
from snncc.cli.zoo import zoo_command
from snncc.errors import SnnccError
from snncc.graph import first_line

INTERRUPTED = 130


class Application(click.Group):
    """The group of all commands; turns whatever is raised into one clear message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; with `standalone_mode=False`, raise and return as click does."""
        parent = super().main
        if not standalone_mode:
            return parent(args, prog_name, complete_var, standalone_mode=False, **extra)
        terminal = Terminal()

        def work() -> Any:
            # The name is fixed: under `python -m snncc` messages and help should read the same.
            result = parent(args, "snncc", complete_var, standalone_mode=False, obj=terminal, **extra)
            sys.stdout.flush()
            return result

        sys.exit(_guarded(work, terminal))


def _guarded(work: Callable[[], Any], terminal: Terminal) -> int:
    """Run the command line and return its exit code."""
    try:
        result = work()
    except SnnccError as error:
        terminal.error(str(error))
        if os.environ.get("SNNCC_DEBUG"):
            terminal.traceback()
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.hint(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        terminal.error(_lower_first(error.format_message()).rstrip("."))
        if error.ctx is not None:
            terminal.hint(f"`{error.ctx.command_path} --help` explains the options")
        return error.exit_code
    except click.ClickException as error:
        terminal.error(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        terminal.error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        terminal.error("not enough memory: try a smaller --batch-size or fewer samples")
        return 1
    except Exception as error:
        terminal.error(f"unexpected {type(error).__name__}: {first_line(error)}; please report it with the command")
        if terminal.verbose or os.environ.get("SNNCC_DEBUG"):
            terminal.traceback()
        return 1
    return result if isinstance(result, int) else 0


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


EPILOG = """\b
Examples:
  snncc compile zoo:fashion_resnet20 --calib zoo:calibration
  snncc eval fashion_resnet20.snn.onnx --data zoo:test --against zoo:fashion_resnet20

A MODEL is the path of an ONNX file or zoo:NAME, DATA is an .npz or .npy file, a folder of images, or zoo:NAME;
`snncc zoo` lists the names.
"""


@click.group(cls=Application, context_settings=SETTINGS, epilog=EPILOG)
@click.version_option(__version__, prog_name="snncc", message="%(prog)s %(version)s")
@common_options
def main() -> None:
    """Turn trained ONNX networks into spiking ones, without training."""


for _command in (
    compile_command,
    search_command,
    run_command,
    eval_command,
    events_command,
    stream_command,
    inspect_command,
    view_command,
    zoo_command,
):
    main.add_command(_command)
