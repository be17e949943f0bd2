"""Compile broken models by the thousand: each must end in a SnnccError or in a network that works.

A case is compiled in a worker process with a limit on time and memory, loaded in ONNX Runtime and run; where the
original runs and its outputs are finite, the spiking network's must be too, and of the same type and shape. The cases
depend on their numbers only: `--first 123 --cases 1 --keep FOLDER` writes the model of case 123.

    python benchmarks/fuzz.py --cases 3000
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

from environment import signature
from fuzz_mutations import case

FAILURES = ("exception", "crash", "hang", "memory", "wrong")
ORIGINAL_SECONDS = 5.0


class Worker:
    """A process that compiles one case after the other, replaced when it has died or had to be ended."""

    def __init__(self, memory_gib: float) -> None:
        self.memory_gib = memory_gib
        self._start()

    def _start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), str(self.memory_gib)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True)
        self.reader.start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        for line in process.stdout or ():
            lines.put(line.rstrip("\n"))
        lines.put("")

    def run(self, number: int, seconds: float) -> tuple[str, str]:
        """Return the result of a case and a line about it."""
        if self.process.stdin is None:
            raise RuntimeError("the worker has no input")
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
        stage, end = "start", time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                self.close()
                self._start()
                return ("hang" if stage != "original" else "original"), f"took too long at {stage}"
            kind, _, text = line.partition("\t")
            if kind == "stage":
                stage = text
                if stage == "original":  # how long that takes says nothing of snncc
                    end = min(end, time.monotonic() + ORIGINAL_SECONDS)
                elif stage == "run":
                    end = time.monotonic() + seconds
            elif kind:
                return kind, text
            else:  # the end of its output
                code = self.process.wait()
                self.close()
                self._start()
                if stage == "start" and code == 0:  # it ended by itself after the case before, which took much memory
                    return self.run(number, seconds)
                return ("crash" if stage != "original" else "original"), f"exit code {code} at {stage}"

    def close(self) -> None:
        """End the process, if it hasn't ended."""
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it never read
                    stream.close()


def main() -> None:
    """Run the cases, print each failure as it comes and the counts in the end; exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000, help="number of cases (default: 3000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time, whatever is left")
    parser.add_argument("--timeout", type=float, default=30.0, help="limit per case in seconds (default: 30)")
    parser.add_argument("--memory", type=float, default=4.0, help="limit per case in GiB (default: 4)")
    parser.add_argument("--keep", type=Path, help="folder for the models that fail, or for all with --cases 1")
    options = parser.parse_args()
    start, counts = time.monotonic(), collections.Counter[str]()
    worker = Worker(options.memory)
    try:
        for number in range(options.first, options.first + options.cases):
            if time.monotonic() - start > options.seconds:
                break
            kind, text = worker.run(number, options.timeout)
            counts[kind] += 1
            if kind in FAILURES:
                print(f"case {number} ({case(number)[0]}): {kind}: {text}", flush=True)
            if options.keep and (kind in FAILURES or options.cases == 1):
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{number}.onnx").write_bytes(case(number)[1])
                print(f"case {number} ({case(number)[0]}): {kind}: {text}", flush=True)
    finally:
        worker.close()
    total = sum(counts.values())
    failed = sum(counts[kind] for kind in FAILURES)
    print(f"{total} cases in {time.monotonic() - start:.0f} s: {failed} failed")
    for kind, meaning in (
        ("refused", "ended in a SnnccError"),
        ("works", "compiled, loaded and finite where the original is"),
        ("original", "compiled; ONNX Runtime can't run the original"),
        ("gap", "compiled; an operator (a division, say), or float32, has no value for the approximation"),
        ("exception", "FAILED: another exception, or an error of snncc's own"),
        ("crash", "FAILED: the process died"),
        ("hang", "FAILED: took too long"),
        ("memory", "FAILED: took too much memory"),
        ("wrong", "FAILED: compiled to something that doesn't work"),
    ):
        print(f"{counts[kind]:7}  {meaning}")
    print(signature())
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
