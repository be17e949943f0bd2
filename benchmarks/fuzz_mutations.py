"""Small valid networks, and what can be wrong with a model: each mutation takes a model and a random source."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "loc" : 1]>'
NETWORKS = {
    "convolutions": """g (float[N,2,6,6] x, float[4,2,3,3] w_1, float[4] w_b, float[4] w_g, float[4] w_h, float[4] w_m,
        float[4] w_v, float[3,4,3,3] w_2, float[12,5] w_3) => (float[N,5] y) {
        c = Conv<pads=[1,1,1,1]>(x, w_1, w_b) n = BatchNormalization(c, w_g, w_h, w_m, w_v) r = Relu(n)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) d = Conv<pads=[1,1,1,1], strides=[2,2]>(p, w_2)
        s = Relu(d) f = Flatten(s) y = MatMul(f, w_3) }""",
    "perceptron": """g (float[N,6] x, float[6,8] w_1, float[8] w_b, float[8,8] w_2, float[8,5] w_3) => (float[N,5] y)
        <float zero = {0}, float six = {6}> {
        h = Gemm(x, w_1, w_b) r = Clip(h, zero, six) i = MatMul(r, w_2) k = Add(i, h) s = Relu(k)
        o = MatMul(s, w_3) y = Softmax<axis=-1>(o) }""",
    "shapes": """g (float[1,4,4,4] x, float[8,4,1,1] w_1, float[8,8,1,1] w_2) => (float[1,8,8,8] y)
        <int64[5] split = {1, 2, 4, 4, 4}, int64[4] join = {1, 8, 4, 4}, int64[4] sizes = {1, 8, 8, 8},
         int64[1] one = {1}, int64[1] two = {2}, int64[1] zero = {0}, float scale = {0.5}> {
        c = Conv(x, w_1) r = Relu(c) k = Reshape(r, split) t = Transpose<perm=[0,2,1,3,4]>(k) j = Reshape(t, join)
        u = Resize<mode="nearest">(j, , , sizes) d = Conv(u, w_2) e = Mul(d, scale) y = Relu(e) }""",
    "branches": """g (float[N,6] x, float[6,8] w_1, float[8,6] w_2) => (float[N,6] y, float[N,8] r)
        <float zero = {0}> { l = ReduceMax<keepdims=0>(x) c = Greater(l, zero)
        h = MatMul(x, w_1) r = Relu(h) i = MatMul(r, w_2)
        z = If (c) <then_branch = a () => (float[N,6] p) { p = Neg(x) }, else_branch = b () => (float[N,6] q) {
            q = Abs(x) }>
        k = Add(i, z) y = loc.act<slope=2.0>(k) }
        <domain: "loc", opset_import: ["" : 17]> act <slope> (a) => (b) {
            s = Constant<value_float: float = @slope>() m = Mul(a, s) b = Relu(m) }""",
    "quantised": """g (float[2,6] x, float[8,5] w_2) => (float[2,5] y) <float s = {0.05}, uint8 z = {100},
        float t = {0.1}, uint8 u = {0},
        int8[6,8] q = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,
        1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}, int8 v = {0},
        float half = {0.5}, float zero = {0}, float seven = {7}> {
        a = QuantizeLinear(x, s, z) m = QLinearMatMul(a, s, z, q, s, v, t, u) d = DequantizeLinear(m, t, u)
        h = MatMul(d, w_2) e = Div(h, half) c = Clip(e, zero, seven) f = Round(c) y = Mul(f, half) }""",
}


def network(name: str, seed: int) -> onnx.ModelProto:
    """Return one of the networks; inputs whose names begin with `w_` become random weights."""
    model = onnx.parser.parse_model(f"{HEADER} {NETWORKS[name]}")
    rng = np.random.default_rng(seed)
    for info in [i for i in model.graph.input if i.name.startswith("w_")]:
        model.graph.input.remove(info)
        values = rng.standard_normal([d.dim_value for d in info.type.tensor_type.shape.dim]).astype(np.float32)
        values = np.abs(values) if info.name == "w_v" else values
        model.graph.initializer.append(numpy_helper.from_array(values, info.name))
    return model


EXTREMES = (0, 1, -1, 2, 3, 7, -2, 255, 65536, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
NAMES = ("", " ", "x", "y", "a/b\\c", "\n", "%s{}", "ü🙂", "n" * 300, "../../etc", "__snncc__", "'\"", "if")
OPERATORS = sorted({s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""})


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    graphs = [model.graph.node, *(f.node for f in model.functions)]
    node: onnx.NodeProto = rng.choice(rng.choice([nodes for nodes in graphs if len(nodes)]))
    return node


def _names(model: onnx.ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in (*node.input, *node.output)] + ["x", "nowhere", ""]


def dangling(model: onnx.ModelProto, rng: random.Random) -> None:
    """An input that nobody makes, or another one: cycles too."""
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))


def other_output(model: onnx.ModelProto, rng: random.Random) -> None:
    """A node or the network makes something else."""
    target = rng.choice([_node(model, rng).output, None])
    if target is None:
        rng.choice(model.graph.output).name = rng.choice(_names(model))
    elif target:
        target[rng.randrange(len(target))] = rng.choice(_names(model))


def order(model: onnx.ModelProto, rng: random.Random) -> None:
    """Nodes in another order."""
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def drop(model: onnx.ModelProto, rng: random.Random) -> None:
    """A node, weight, input, output, function or import is missing, or there twice."""
    graph = model.graph
    lists = [graph.node, graph.initializer, graph.input, graph.output, model.functions, model.opset_import]
    chosen = rng.choice([items for items in lists if len(items)])
    position = rng.randrange(len(chosen))
    if rng.random() < 0.3:
        chosen.add().CopyFrom(chosen[position])
    else:
        del chosen[position]


def element_type(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another element type."""
    code = rng.choice([*TensorProto.DataType.values(), 99])
    ends = (*model.graph.input, *model.graph.output)
    chosen = rng.choice([*ends, *model.graph.initializer])
    if isinstance(chosen, TensorProto):
        chosen.data_type = code
    else:
        chosen.type.tensor_type.elem_type = code


def retyped_weight(model: onnx.ModelProto, rng: random.Random) -> None:
    """A weight that is really of another type."""
    tensor = rng.choice(model.graph.initializer)
    dtype = rng.choice([np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_])
    with np.errstate(all="ignore"):
        values: NDArray[Any] = numpy_helper.to_array(tensor).astype(dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def size(model: onnx.ModelProto, rng: random.Random) -> None:
    """A size of an input or output is negative, zero, huge, or unknown."""
    info = rng.choice([*model.graph.input, *model.graph.output])
    dims = info.type.tensor_type.shape.dim
    if rng.random() < 0.2 or not dims:
        info.type.tensor_type.ClearField("shape")
    elif rng.random() < 0.3:
        rng.choice(dims).dim_param = rng.choice(NAMES)
    else:
        rng.choice(dims).dim_value = rng.choice(EXTREMES)


def weight_size(model: onnx.ModelProto, rng: random.Random) -> None:
    """A weight says another shape, with the elements for it or without."""
    tensor = rng.choice(model.graph.initializer)
    if rng.random() < 0.5 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(EXTREMES)
        return
    values: NDArray[Any] = numpy_helper.to_array(tensor)
    shape = [rng.choice([0, 1, 2, d]) for d in values.shape]
    tensor.CopyFrom(numpy_helper.from_array(np.resize(values, shape).astype(values.dtype), tensor.name))


def weight_values(model: onnx.ModelProto, rng: random.Random) -> None:
    """NaN, infinities, dead channels, vanishing variances, extremes."""
    tensor = rng.choice(model.graph.initializer)
    values: NDArray[Any] = numpy_helper.to_array(tensor).copy()
    if values.dtype.kind == "f":
        value = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1e38, -1e38, 1e-45, -1.0, 1e9])
    else:
        value = rng.choice([v for v in EXTREMES if np.iinfo(values.dtype).min <= v <= np.iinfo(values.dtype).max])
    if values.ndim and values.size and rng.random() < 0.6:
        values[rng.randrange(len(values))] = value
    else:
        values[...] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """An attribute is missing, of another type or out of range."""
    node = _node(model, rng)
    if node.attribute and rng.random() < 0.4:
        del node.attribute[rng.randrange(len(node.attribute))]
        return
    known = [a.name for a in node.attribute] + ["axis", "axes", "perm", "to", "pads", "group", "mode", "kernel_shape"]
    values: list[Any] = [
        rng.choice(EXTREMES),
        rng.choice([0.0, -1.0, 1e30, float("nan")]),
        rng.choice(NAMES),
        [],
        ["a", "b"],
    ]
    values += [
        [rng.choice(EXTREMES) for _ in range(rng.randrange(1, 5))],
        [rng.choice([0, 1]) for _ in range(4)],
        ["a", "b"],
    ]
    name = rng.choice(known)
    for position in [i for i, a in enumerate(node.attribute) if a.name == name][::-1]:
        del node.attribute[position]
    kind = onnx.AttributeProto.INTS if name == "axes" else None  # an empty list doesn't say what it is a list of
    node.attribute.append(helper.make_attribute(name, rng.choice(values), attr_type=kind))


def operator(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another operator, perhaps of a domain that nobody defines."""
    node = _node(model, rng)
    if rng.random() < 0.2:
        node.domain = rng.choice(["acme", "snncc", "ai.onnx", "com.microsoft", "loc", "ai.onnx.ml"])
    else:
        node.op_type = rng.choice([*OPERATORS, "act", "BurstIF", ""])


def inserted(model: onnx.ModelProto, rng: random.Random) -> None:
    """One more operator between two nodes, which may well be valid."""
    position = rng.randrange(len(model.graph.node))
    node = model.graph.node[position]
    if not node.input:
        return
    which = rng.randrange(len(node.input))
    source, target = node.input[which], f"inserted_{rng.randrange(10**6)}"
    extra = [rng.choice([source, t.name]) for t in rng.sample(list(model.graph.initializer), rng.choice([0, 0, 1, 2]))]
    new = helper.make_node(rng.choice(OPERATORS), [source, *extra], [target])
    if rng.random() < 0.3:
        new.attribute.append(helper.make_attribute("axis", rng.choice([0, 1, -1])))
    node.input[which] = target
    model.graph.node.insert(position, new)


def names(model: onnx.ModelProto, rng: random.Random) -> None:
    """Odd, empty or duplicate names, of nodes or throughout for a tensor."""
    name = rng.choice(NAMES)
    if rng.random() < 0.5:
        for node in rng.sample(list(model.graph.node), rng.randrange(1, len(model.graph.node) + 1)):
            node.name = name
        return
    old = rng.choice(_names(model))
    for node in model.graph.node:
        for values in (node.input, node.output):
            for position, value in enumerate(values):
                if value == old:
                    values[position] = name
    for named in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if named.name == old:
            named.name = name


def versions(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another opset or IR version."""
    if rng.random() < 0.3 or not model.opset_import:
        model.ir_version = rng.choice([0, 1, 3, 4, 7, 9, 10, 99, 2**40])
    else:
        rng.choice(model.opset_import).version = rng.choice([0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 21, 23, 99, -1])


def constants_to_nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    """A weight is made by a node whose size may be anything."""
    tensor = rng.choice(model.graph.initializer)
    name = tensor.name
    shape = helper.make_tensor("dims", TensorProto.INT64, [2], [rng.choice(EXTREMES), rng.choice(EXTREMES)])
    shape.name = f"{name}_dims"
    model.graph.initializer.remove(tensor)
    model.graph.initializer.append(shape)
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [rng.choice([0.0, 1.0, float("nan")])])
    op = rng.choice(["ConstantOfShape", "RandomNormalLike", "Range"])
    if op == "ConstantOfShape":
        node = helper.make_node(op, [shape.name], [name], value=value)
    elif op == "Range":
        model.graph.initializer.append(helper.make_tensor(f"{name}_end", 7, [], [rng.choice(EXTREMES)]))
        model.graph.initializer.append(helper.make_tensor(f"{name}_one", 7, [], [rng.choice([1, 0, -1])]))
        node = helper.make_node(op, [f"{name}_one", f"{name}_end", f"{name}_one"], [name])
    else:
        node = helper.make_node(op, ["x"], [name])
    model.graph.node.insert(0, node)


MUTATIONS: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(dangling, other_output, order, drop, element_type, retyped_weight, size, weight_size, weight_values, attribute),
    *(operator, inserted, inserted, names, versions, constants_to_nodes),
)


def broken_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or swap bytes."""
    broken = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        start = rng.randrange(len(broken) or 1)
        length = rng.choice([1, 1, 4, 16, 200])
        kind = rng.randrange(5)
        if kind <= 1 and broken:
            broken[start] = rng.randrange(256)
        elif kind == 2:
            del broken[start : start + length]
        elif kind == 3:
            broken[start:start] = broken[start : start + length]
        else:
            del broken[start : None if rng.random() < 0.2 else start + 1]
    return bytes(broken)


def case(number: int) -> tuple[str, bytes]:
    """Return what was done, and the model file of a numbered case: the same in every run."""
    rng = random.Random(number)
    name = rng.choice(sorted(NETWORKS))
    model = network(name, rng.randrange(1000))
    steps = [name]
    if rng.random() < 0.15:
        return f"{name}: bytes", broken_bytes(model.SerializeToString(), rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutation = rng.choice(MUTATIONS)
        steps.append(mutation.__name__)
        try:
            mutation(model, rng)
        except (ValueError, TypeError, LookupError, AttributeError):  # it doesn't fit this model any more
            continue
    return ": ".join((steps[0], ", ".join(steps[1:]))), model.SerializeToString()
