"""Operator set versions: which onnxruntime they need, and how a model gets a newer one."""

from __future__ import annotations

from importlib.metadata import version

import onnx
import onnx_ir as ir
from onnx import defs, version_converter

from ptq_lab.errors import ModelError
from ptq_lab.graph.model import Model, name_nodes

# First onnxruntime release that implements an opset, by onnxruntime's own version table.
_ONNXRUNTIME = {
    11: "1.0",
    12: "1.3",
    13: "1.6",
    14: "1.8",
    15: "1.10",
    16: "1.11",
    17: "1.12",
    18: "1.14",
    19: "1.15",
    20: "1.17",
    21: "1.18",
    22: "1.21",
    24: "1.23",
}
_IR_VERSION = {7: 3, 9: 4, 10: 5, 11: 6, 12: 7, 15: 8, 19: 9, 21: 10, 23: 11, 24: 12, 25: 13}
_LARGE = 4096  # bytes; the version converter reads small constants (axes, scales), never weights


def onnxruntime_for(opset: int) -> str:
    """Return the oldest onnxruntime release that runs an opset; the one installed, if the table ends before it.

    Examples
    --------
    >>> onnxruntime_for(18)
    '1.14'
    """
    fitting = [release for newest, release in _ONNXRUNTIME.items() if opset <= newest]
    return fitting[0] if fitting else ".".join(version("onnxruntime").split(".")[:2])


def ir_version_for(opset: int) -> int:
    """Return the oldest IR version that a file of this opset may declare."""
    return max(version for first, version in _IR_VERSION.items() if first <= max(opset, 7))


def raise_opset(model: Model, opset: int) -> Model:
    """Return the model at `opset` or above; the same model if it is there already.

    If the definition of every operator used is the same in both versions, only the number changes. Otherwise
    ONNX's version converter rewrites the graph, with the weights kept out of its way.

    Raises
    ------
    ModelError
        If the converter cannot do it.
    """
    if model.opset >= opset:
        return model
    raised = model.clone()
    if not _same_definitions(raised.ir_model, model.opset, opset):
        raised = Model(_convert(raised.ir_model, opset, model.label), model.label)
    raised.ir_model.opset_imports[""] = opset
    for function in raised.ir_model.functions.values():
        if "" in function.opset_imports:
            function.opset_imports[""] = opset
    raised.ir_model.ir_version = max(raised.ir_model.ir_version, ir_version_for(opset))
    return raised


def _same_definitions(model: ir.Model, old: int, new: int) -> bool:
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    used = {node.op_type for body in bodies for node in body.all_nodes() if node.domain in ("", "ai.onnx")}
    return all(_since(name, old) == _since(name, new) for name in used)


def _since(op_type: str, opset: int) -> int:
    try:
        return int(defs.get_schema(op_type, opset, "").since_version)
    except defs.SchemaError:
        return -1


def _convert(model: ir.Model, opset: int, label: str) -> ir.Model:
    """Run the version converter over the graph, its large constants set aside as inputs."""
    if model.functions:
        raise ModelError(
            f"{label}: has opset {model.opset_imports.get('')} and this width needs {opset}, but a model with local "
            "functions cannot be raised; use bit_num=8 or 16, or export the model with a newer opset"
        )
    aside = {name: value for name, value in model.graph.initializers.items() if _is_large(value)}
    tensors = {name: value.const_value for name, value in aside.items()}
    for name, value in aside.items():
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)
    try:
        converted = ir.from_proto(_convert_proto(ir.to_proto(model), opset))
    except Exception as error:  # the converter is C++ and raises RuntimeError and others
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise ModelError(
            f"{label}: has opset {model.opset_imports.get('')}, this width needs {opset}, and onnx's version converter "
            f"failed ({reason}); use bit_num=8 or 16, or export the model with a newer opset"
        ) from error
    for value in [value for value in converted.graph.inputs if value.name in tensors]:
        converted.graph.inputs.remove(value)
        value.const_value = tensors[value.name or ""]
        converted.graph.register_initializer(value)
    converted.metadata_props.update(model.metadata_props)
    name_nodes(converted.graph)
    return converted


def _convert_proto(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    converted = version_converter.convert_version(proto, opset)
    for before, after in zip(proto.graph.output, converted.graph.output, strict=True):
        if before.name != after.name:
            raise RuntimeError(f"it renamed the output {before.name}")
    return converted


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.nbytes > _LARGE and not value.is_graph_input()
