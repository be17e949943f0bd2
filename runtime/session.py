"""ONNX Runtime sessions, made one way everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from snncc.errors import ModelError
from snncc.graph import first_line

Array = NDArray[Any]


class Session:
    """A model that is ready to run on the CPU.

    Attributes:
        inputs: names of the inputs.
        outputs: names of the outputs.
    """

    def __init__(self, model: onnx.ModelProto | str, what: str, threads: int = 0) -> None:
        """Load a model, given as a message or as the path of a file.

        Args:
            model: the model.
            what: what it is, for error messages.
            threads: size of the thread pool, 0 for one thread per core.

        Raises:
            ModelError: ONNX Runtime can't load it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        # Several sessions live side by side; pools that spin while idle would fight for the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = model if isinstance(model, str) else model.SerializeToString()
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own types and plain RuntimeError
            raise ModelError(f"{what}: ONNX Runtime can't load it: {first_line(error)}") from error
        self._what = what
        self.inputs = [i.name for i in self._session.get_inputs()]
        self.outputs = [o.name for o in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model and return its outputs by name.

        Raises:
            ModelError: it breaks on these inputs.
        """
        names = list(outputs) if outputs is not None else self.outputs
        wanted = {name: np.ascontiguousarray(feeds[name]) for name in self.inputs}
        try:
            return dict(zip(names, self._session.run(names, wanted), strict=True))
        except Exception as error:
            raise ModelError(f"{self._what}: ONNX Runtime failed: {first_line(error)}") from error

    def run_into(self, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        """Run the model and write its outputs into contiguous arrays of their shapes and dtypes.

        Raises:
            ModelError: it breaks on these inputs, or an output is of another shape.
        """
        try:
            binding = self._session.io_binding()
            for name in self.inputs:
                binding.bind_cpu_input(name, np.ascontiguousarray(feeds[name]))
            for name in self.outputs:
                value = results[name]
                binding.bind_output(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"{self._what}: ONNX Runtime failed: {first_line(error)}") from error
