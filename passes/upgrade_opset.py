"""Bring a model to an opset that the other passes know. It works on the ONNX message, before the import."""

from __future__ import annotations

import onnx
from onnx import inliner, version_converter

from snncc.errors import ModelError
from snncc.graph import DOMAIN, first_line
from snncc.model_checks import check_graph
from snncc.passes.old_operators import explicit_hardmax, old_sampling, set_sampling
from snncc.protos import all_nodes, domain_of, is_large, opset_versions, without_large_initializers

TARGET_OPSET = 17
"""Oldest opset that the passes work on; newer models stay as they are."""
MIN_IR_VERSION = 8
"""The IR version that came with opset 17 and with model-local functions."""


def upgrade_opset(model: onnx.ModelProto, target: int = TARGET_OPSET) -> tuple[onnx.ModelProto, bool]:
    """Return the model in an opset of at least `target`, and whether anything was changed.

    The steps, each of which leaves the network's function alone:

    1. An initializer that is also an input (a default value, as IR versions before 4 demanded) is a constant.
    2. Calls of model-local functions are replaced by the functions' bodies: converter and compiler look into them.
    3. onnx's version converter brings an older opset to `target`. Large weights don't pass through it, so neither
       time nor the 2 GB limit of a message depend on them. Where no operator changed between the opsets, only the
       number is raised.

    Args:
        model: the model; it is not modified.
        target: oldest opset of the default domain to return.

    Raises:
        ModelError: onnx can't inline or convert the model.
    """
    version = opset_versions(model.opset_import).get("")
    initialized = {tensor.name for tensor in model.graph.initializer}
    has_defaults = any(info.name in initialized for info in model.graph.input)
    local = [(f.domain, f.name) for f in model.functions if f.domain != DOMAIN]
    current = version is not None and version >= target and model.ir_version >= MIN_IR_VERSION
    if current and not has_defaults and not local:
        return model, False

    light, heavy = without_large_initializers(model), [t for t in model.graph.initializer if is_large(t)]
    light.ir_version = max(light.ir_version, MIN_IR_VERSION)  # first: it lets an initializer be no input
    if local:
        light = _inlined(light, local)
    if version is None:
        light.opset_import.append(onnx.helper.make_opsetid("", target))
    elif version < target:
        light = _converted(light, version, target)
    return _joined(light, heavy), True


def _joined(light: onnx.ModelProto, heavy: list[onnx.TensorProto]) -> onnx.ModelProto:
    """Undo `without_large_initializers`."""
    names = {tensor.name for tensor in heavy}
    inputs = [info for info in light.graph.input if info.name not in names]
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    light.graph.initializer.extend(heavy)
    return light


def _inlined(model: onnx.ModelProto, functions: list[tuple[str, str]]) -> onnx.ModelProto:
    try:
        result: onnx.ModelProto = inliner.inline_selected_functions(model, functions, exclude=False)
    except Exception as error:  # the C++ side raises several unrelated types
        raise ModelError(
            f"the model-local functions can't be inlined: {first_line(error)}; export the network without functions"
        ) from error
    check_graph(result, [])  # an attribute of a call may be of a type that its place in the function isn't
    used = {domain_of(node.domain) for node, _ in all_nodes(result)}
    imports = [entry for entry in result.opset_import if domain_of(entry.domain) in used | {""}]
    del result.opset_import[:]
    result.opset_import.extend(imports)
    return result


def _converted(model: onnx.ModelProto, version: int, target: int) -> onnx.ModelProto:
    if not _operators_changed(model, target):
        for entry in model.opset_import:
            if domain_of(entry.domain) == "":
                entry.version = target
        return model
    sampling = old_sampling(model, version)
    explicit_hardmax(model, version)
    try:
        result: onnx.ModelProto = version_converter.convert_version(model, target)
    except Exception as error:  # the C++ side raises several unrelated types
        reason = first_line(error).rpartition("` failed: ")[2]  # without the assertion and the place in its source
        raise ModelError(
            f"the model can't be upgraded from opset {version} to {target}: {reason}; "
            f"export it again with opset {target} or later"
        ) from error
    set_sampling(result, sampling)
    return result


def _operators_changed(model: onnx.ModelProto, target: int) -> bool:
    """Whether the definition of any operator of the model differs between its opset and `target`."""
    for node, opsets in all_nodes(model):
        if domain_of(node.domain) != "":
            continue
        try:
            old = onnx.defs.get_schema(node.op_type, opsets.get("", target), "")
            new = onnx.defs.get_schema(node.op_type, target, "")
        except onnx.defs.SchemaError:
            return True
        if old.since_version != new.since_version:
            return True
    return False
