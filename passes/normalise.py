"""The passes that bring a freshly imported network into the form that everything else is written for.

They follow `upgrade_opset`, which works on the ONNX message, and `import_graph`.
"""

from __future__ import annotations

from snncc.passes.base import Pass
from snncc.passes.constants import ConstantsToInitializers
from snncc.passes.dead_nodes import RemoveDeadNodes
from snncc.passes.dequantise import Dequantise
from snncc.passes.einsum_weights import EinsumToMatMul
from snncc.passes.fixpoint import Fixpoint
from snncc.passes.float32 import ComputeInFloat32
from snncc.passes.fold_affine import FoldAffine
from snncc.passes.fold_constants import FoldConstants
from snncc.passes.infer_shapes import InferShapes
from snncc.passes.quantised_activation import RecogniseQuantisedActivations
from snncc.passes.remove_noops import RemoveNoOps

NORMALISE: tuple[Pass, ...] = (
    # First: every later pass looks for constants among the initializers only.
    ConstantsToInitializers(),
    # What no output needs costs no work and can't be in the way of another pass (a second reader of a tensor).
    RemoveDeadNodes(),
    # Shapes let constants be folded, folded constants (the target of a Reshape) let shapes be inferred, and both show
    # which nodes do nothing, whose removal lets the first two see further.
    Fixpoint((InferShapes(), FoldConstants(), RemoveNoOps())),
    # After folding, which computes the scales; before everything that looks for floating-point weights.
    Dequantise(),
    # After folding, so that arithmetic on shapes and constants is done in the types that the network asks for.
    ComputeInFloat32(),
    # Again: a Cast from float16 to float32 does nothing now.
    RemoveNoOps(),
    # Needs ranks; before everything that looks for weighted layers.
    EinsumToMatMul(),
    # Before a layer takes in the division by λ that the pattern begins with.
    RecogniseQuantisedActivations(),
    # Last of the changes: BatchNormalization must directly follow its layer, its parameters be constant and float32,
    # and the ranks around a MatMul be known.
    FoldAffine(),
    # Folding leaves Shape nodes and the like without readers.
    RemoveDeadNodes(),
    # For everything that follows: the new tensors have no shapes yet.
    InferShapes(),
)
