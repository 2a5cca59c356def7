"""The skeleton: an ONNX file some of whose initializers are empty, and the check that nothing else is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

from ptq_lab.container.records import TensorRecord
from ptq_lab.graph.slots import NOWHERE


def read_skeleton(data: bytes, tensors: Mapping[str, TensorRecord]) -> onnx.ModelProto:
    """Return the skeleton with its slots as initializers without data.

    Raises
    ------
    ValueError
        If it is no ONNX model, its slots are not the tensors of the manifest, or it points to any other file.
    """
    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ValueError("it is no ONNX model") from error
    inputs = {value.name for value in proto.graph.input}
    found = set()
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        record = tensors.get(tensor.name)
        if record is None or tensor.name in found or tensor.name in inputs:
            raise ValueError(f"it has an empty tensor {tensor.name}, which does not belong there")
        _check_slot(tensor, record)
        found.add(tensor.name)
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    if missing := sorted(set(tensors) - found):
        raise ValueError(f"it has no place for the tensor {missing[0]}")
    for tensor in _external(proto):
        raise ValueError(f"its tensor {tensor.name} lies in another file")
    return proto


def _check_slot(tensor: onnx.TensorProto, record: TensorRecord) -> None:
    places = {item.key: item.value for item in tensor.external_data}
    if places.pop("location", None) != NOWHERE:
        raise ValueError(f"its tensor {tensor.name} lies in another file")
    if tuple(tensor.dims) != record.shape or tensor.data_type != ir.DataType[record.dtype].value:
        raise ValueError(f"its tensor {tensor.name} has another shape or element type than the manifest says")
    if places != {"offset": "0", "length": str(record.nbytes)}:
        raise ValueError(f"its tensor {tensor.name} has another size than the manifest says")


def _external(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a message that claims to be in another file."""
    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
            yield message
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for inner in value if not isinstance(value, Message) else (value,):
            yield from _external(inner)
