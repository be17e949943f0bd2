"""snncc: a compiler that turns trained ONNX networks into spiking ones, without training.

network = snncc.compile("model.onnx", calibration=images, config=snncc.Config(timesteps=8, max_burst=4))
network.save("model.snn.onnx")
logits = network.run(images)["logits"]
"""

from snncc.allocation.result import Budget, SearchResult
from snncc.allocation.run import search
from snncc.artifact import VERSION
from snncc.compiling import compile
from snncc.config import Config
from snncc.errors import SnnccError
from snncc.network import SpikingNetwork, load

__version__ = VERSION

__all__ = [
    "Budget",
    "Config",
    "SearchResult",
    "SnnccError",
    "SpikingNetwork",
    "__version__",
    "compile",
    "load",
    "search",
]
