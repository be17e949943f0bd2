"""ONNX Runtime sessions, made one way everywhere."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from snncc.errors import ModelError, ResourceError
from snncc.graph import first_line
from snncc.packed import Packed, pack

Array = NDArray[Any]

_BINDINGS = 64
"""Most bindings that a session keeps."""


@functools.cache
def _share_memory() -> None:
    """Let all sessions of the process take their memory from one place, as each keeps what it ever took.

    A network has dozens of sessions, of which few run at a time; what one leaves is warm in the cache for the next.
    """
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with contextlib.suppress(RuntimeError):  # somebody else in this process has made one before
        ort.create_and_register_allocator(place, None)


def check_loads(model: onnx.ModelProto, what: str) -> None:
    """Check that ONNX Runtime takes a model, with no more work than that needs: nothing is optimised, nothing copied.

    Args:
        model: the model.
        what: what it is, for error messages.

    Raises:
        ModelError: ONNX Runtime can't load it.
        ResourceError: there is too little memory.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.intra_op_num_threads = 1
    _loaded(model, options, what)


def _loaded(
    model: onnx.ModelProto | Packed, options: ort.SessionOptions, what: str
) -> tuple[ort.InferenceSession, list[ort.OrtValue]]:
    """Return a session, and the weights, which it reads where they are: they must live as long."""
    options.log_severity_level = 4
    try:
        packed = model if isinstance(model, Packed) else pack(model)
        weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in packed.weights.values()]
        options.add_external_initializers(list(packed.weights), weights)
        return ort.InferenceSession(packed.message, options, providers=["CPUExecutionProvider"]), weights
    except MemoryError as error:
        raise ResourceError(f"{what}: not enough memory to load it") from error
    except Exception as error:  # onnxruntime raises its own types and plain RuntimeError
        raise ModelError(f"{what}: ONNX Runtime can't load it: {first_line(error)}") from error


class Session:
    """A model that is ready to run on the CPU.

    Attributes:
        inputs: names of the inputs.
        outputs: names of the outputs.
    """

    def __init__(self, model: onnx.ModelProto | Packed, what: str, threads: int = 0) -> None:
        """Load a model.

        Args:
            model: the model.
            what: what it is, for error messages.
            threads: size of the thread pool, 0 for one thread per core.

        Raises:
            ModelError: ONNX Runtime can't load it.
            ResourceError: there is too little memory.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Several sessions live side by side; pools that spin while idle would fight for the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        self._session, self._weights = _loaded(model, options, what)
        self._what = what
        self._bindings: dict[Any, ort.IOBinding] = {}
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
        arrays = [np.ascontiguousarray(feeds[name]) for name in self.inputs]
        try:
            self._session.run_with_iobinding(self._bound(arrays, [results[name] for name in self.outputs]))
        except Exception as error:
            raise ModelError(f"{self._what}: ONNX Runtime failed: {first_line(error)}") from error

    def _bound(self, arrays: list[Array], results: list[Array]) -> ort.IOBinding:
        """Return a binding of inputs and outputs; the last ones are used again for the same places in memory."""
        places = [(a.ctypes.data, a.shape, a.dtype) for a in (*arrays, *results)]
        key = (threading.get_ident(), *places)
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._session.io_binding()
            for name, (place, shape, dtype) in zip(self.inputs, places, strict=False):
                binding.bind_input(name, "cpu", 0, dtype, shape, place)
            for name, (place, shape, dtype) in zip(self.outputs, places[len(arrays) :], strict=True):
                binding.bind_output(name, "cpu", 0, dtype, shape, place)
            if len(self._bindings) >= _BINDINGS:
                self._bindings.clear()
            self._bindings[key] = binding
        return binding
