"""Measure one network: `python -m conformance.worker FOLDER`, in a process of its own.

`FOLDER/request.json` says what to do (`Request`); each finding is appended to `FOLDER/records.jsonl` at once, so that
what is known survives a crash, and so does what was going on.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from conformance.compare import Comparison, NoReferenceError, Request, is_shortage
from conformance.row import COMPILED, CRASHED, FAILED, MEMORY, NO_REFERENCE, REFUSED
from conformance.survey import Weight, facts, grouped, read, tensor_sizes


class Worker:
    """The measurement of one network."""

    def __init__(self, folder: Path, request: Request) -> None:
        self.folder, self.request = folder, request
        self.stage = "start"

    def note(self, **record: Any) -> None:
        """Keep findings."""
        self.stage = record.get("stage", self.stage)
        with (self.folder / "records.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def run(self) -> None:
        """Measure; whatever goes wrong becomes a status."""
        from snncc.errors import SnnccError, UnsupportedModelError

        try:
            self._measure()
            self.note(status=COMPILED)
        except NoReferenceError as error:
            self.note(status=NO_REFERENCE, reasons=[str(error)])
        except UnsupportedModelError as error:
            self.note(status=REFUSED, reasons=grouped(error.obstacles), details=str(error))
        except (SnnccError, MemoryError) as error:
            if is_shortage(error):
                self.note(status=MEMORY, reasons=[f"{self.stage}: needs more than {self.request.memory:g} GiB"])
                return
            reason = str(error).replace(self.request.path, Path(self.request.path).name)  # folders are no finding
            self.note(status=self._blame(error), reasons=[f"{self.stage}: {reason}"], details=traceback.format_exc())
        except Exception as error:  # what snncc didn't foresee
            reason = f"{self.stage}: {type(error).__name__}: {str(error)[:300]}"
            self.note(status=CRASHED, reasons=[reason], details=traceback.format_exc())

    def _blame(self, error: Exception) -> str:
        """Tell a refusal, which is an answer, from a failure of snncc: the ANN runs, so it isn't the model's fault."""
        from snncc.errors import ArtifactError, ModelError, PassError

        late = self.stage != "read" and isinstance(error, ModelError)
        return FAILED if late or isinstance(error, ArtifactError | PassError) else REFUSED

    def _measure(self) -> None:
        from snncc.compiling import analyse_network, network_summary
        from snncc.config import Config
        from snncc.context import Context
        from snncc.loader import load_model
        from snncc.pipeline import Hook

        self.note(stage="run the ANN")
        try:
            model = read(self.request.path)
        except Exception as error:  # the onnx package raises whatever protobuf does
            raise NoReferenceError(f"the onnx package can't read it: {str(error)[:200]}") from error
        self.note(**facts(model))
        comparison = Comparison(self.request, model, self.folder, self.note)
        open_size = comparison.open_size()
        self.note(stage="read")
        loaded = load_model(self.request.path)
        self.note(stage="analyse")
        context = Context(Config())
        analyse_network(loaded, context, Hook())
        summary = network_summary(context.analysis)
        self.note(**{key: summary.get(key) for key in ("neuron_layers", "spiking_share", "lowering")})
        sizes = tensor_sizes(loaded.model, open_size)
        weight = Weight(summary["macs"]["total"], sum(sizes))
        del loaded
        comparison.run(weight, open_size)


def limit_memory(gibibytes: float) -> None:
    """Let an allocation fail beyond a limit, instead of the machine; without effect where the system has no limits."""
    try:
        import resource
    except ImportError:
        return
    size = int(gibibytes * (1 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def main() -> None:
    """Measure what the folder's request says."""
    folder = Path(sys.argv[1])
    request = Request(**json.loads((folder / "request.json").read_text(encoding="utf-8")))
    limit_memory(request.memory)
    Worker(folder, request).run()


if __name__ == "__main__":
    main()
