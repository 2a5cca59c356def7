"""A model as the rest of the house sees it: named nodes, resolved constants, lazy weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ptq_lab.errors import ModelError, OutputError
from ptq_lab.graph.external import write_outside
from ptq_lab.graph.lazy import LARGE_FILE, read_without_weights
from ptq_lab.graph.mapped import map_external
from ptq_lab.graph.tensors import TensorSpec
from ptq_lab.graph.tidy import check_sources, drop_default_inputs, first_line, put_in_order, share_twins

_ZIP = b"PK\x03\x04"
_SINGLE_FILE_LIMIT = 1_900_000_000  # protobuf ends at 2 GiB
_SHOWN = 60  # characters of what is no path
_NOTHING = np.empty(0, np.uint8)
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An ONNX model.

    Attributes
    ----------
    ir_model : onnx_ir.Model
        The graph; treat it as read-only, or :meth:`clone` first.
    label : str
        What to call it in messages: the file name, or ``"<ModelProto>"``.
    path : Path or None
        The file it was read from or written to.
    data : tuple of str
        External data files of `path`, relative to its folder.
    """

    ir_model: ir.Model
    label: str
    path: Path | None = None
    data: tuple[str, ...] = ()
    _digest: list[str] = field(default_factory=list, repr=False)
    _content: list[str] = field(default_factory=list, repr=False)

    @property
    def graph(self) -> ir.Graph:
        """The main graph."""
        return self.ir_model.graph

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.ir_model.opset_imports.get("", 1)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What has to be fed: inputs without a default value."""
        return tuple(_spec(value) for value in self.graph.inputs if value.const_value is None)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes out."""
        return tuple(_spec(value) for value in self.graph.outputs)

    def weight(self, name: str) -> NDArray[np.float32]:
        """Return a constant by name as float32; 16-bit floats are widened, which is exact."""
        value = self.graph.initializers.get(name)
        tensor = _tensor(value if value is not None else constants(self.graph)[name])
        if isinstance(tensor, ir.ExternalTensor) and tensor.dtype == ir.DataType.FLOAT and tensor.size:
            return map_external(tensor)
        return float32(tensor)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, wherever they lie."""
        return sum(tensor.nbytes for tensor in _weights(self.ir_model))

    def clone(self) -> Model:
        """Return a copy whose graph may be changed; the weights are shared."""
        return Model(self.ir_model.clone(), self.label)

    def serialize(self) -> bytes:
        """Return the model as the bytes of one ``.onnx`` file, external data included."""
        return bytes(_to_proto(self.ir_model).SerializeToString(deterministic=True))

    @property
    def size(self) -> int:
        """Size in bytes, with external data: of the file if there is one, else as it would be written."""
        return sum(file.stat().st_size for file in self.files) if self.path else len(self.serialize())

    @property
    def files(self) -> tuple[Path, ...]:
        """The model's file and those of its external data; none for a model in memory."""
        if self.path is None:
            return ()
        return (self.path, *(self.path.parent / name for name in self.data))

    def digest(self) -> str:
        """Return the SHA-256 of the model's bytes (and external files), as hex."""
        if not self._digest:
            total, chunk = hashlib.sha256(b"" if self.path else self.serialize()), bytearray(1 << 18)
            for file in self.files:
                with file.open("rb", buffering=0) as stream:
                    while count := stream.readinto(chunk):
                        total.update(memoryview(chunk)[:count])
            self._digest.append(total.hexdigest())
        return self._digest[0]

    def content(self) -> str:
        """Return a SHA-256 of graph and weights as they are in memory, as hex.

        Unlike :meth:`digest` it does not look at the file, which may have changed, and it takes less than half
        the time of writing the model: the weights are hashed where they are.
        """
        if not self._content:
            total, bare = hashlib.sha256(), self.ir_model.clone()
            for value in (value for graph in bare.graphs() for value in graph.initializers.values()):
                tensor = value.const_value
                if tensor is not None and tensor.dtype != ir.DataType.STRING:
                    total.update(f"{value.name} {tensor.dtype.name} {tuple(tensor.shape)};".encode())
                    total.update(tensor.tobytes())
                    value.const_value = ir.tensor(_NOTHING, name=value.name)
            total.update(_to_proto(bare).SerializeToString(deterministic=True))
            self._content.append(total.hexdigest())
        return self._content[0]


def load_model(source: str | os.PathLike[str] | onnx.ModelProto | Model) -> Model:
    """Read an ONNX model.

    Parameters
    ----------
    source : path, onnx.ModelProto or Model
        External data are found beside the file and stay on disk. A ``Model`` is returned as it is.

    Returns
    -------
    Model
        Unnamed and twice-used node names are replaced by stable ones such as ``Conv_12``.

    Raises
    ------
    ModelError
        If the file is missing, is no ONNX model, is cut short or damaged, or its external data are missing.
    """
    if isinstance(source, Model):
        return source
    weights: Mapping[str, ir.LazyTensor] = {}
    if isinstance(source, onnx.ModelProto):
        proto, label, path = source, "<ModelProto>", None
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        label = path.name
        proto, weights = _read(path)
    else:
        raise ModelError(f"model: {type(source).__name__} given; a path, an onnx.ModelProto or a ptq_lab.Model wanted")
    model = _understand(proto, label)
    for name, tensor in weights.items():
        model.graph.initializers[name].const_value = tensor
    if path is not None:
        ir.external_data.set_base_dir(model.graph, path.parent)
    _check_external(model, label)
    check_sources(model, label)
    put_in_order(model, label)
    drop_default_inputs(model)
    share_twins(model)
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        if "ai.onnx" in imports:  # the same domain, spelled out
            imports.setdefault("", imports.pop("ai.onnx"))
    name_nodes(model.graph)
    data = {str(tensor.location) for tensor in _external(model)} if path is not None else set()
    return Model(model, label, path, tuple(sorted(data)))


def _understand(proto: onnx.ModelProto, label: str) -> ir.Model:
    """Turn what protobuf has read into a graph that can be edited."""
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(f"{label}: holds no graph, so it is not an ONNX model; is it the right file?")
    if sparse := len(proto.graph.sparse_initializer):
        raise ModelError(
            f"{label}: keeps {sparse} tensors as sparse initializers, which are not supported; export it dense"
        )
    try:
        return ir.from_proto(proto)
    except Exception as error:  # onnx-ir raises many kinds for a damaged graph
        raise ModelError(f"{label}: the graph is damaged ({first_line(error)})") from error


def save_model(model: Model, path: Path, *, external: bool = False) -> Model:
    """Write a model to a file; near protobuf's 2 GiB limit, or if asked, its weights go into ``<name>.data`` beside it.

    Returns
    -------
    Model
        The same model, now with a path.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        if external or model.weight_bytes > _SINGLE_FILE_LIMIT:
            digest = write_outside(model.ir_model, path, _plain_bytes)
            return Model(model.ir_model, path.name, path, (f"{path.name}.data",), [digest])
        path.write_bytes(model.serialize())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})", path=path) from error
    return Model(model.ir_model, path.name, path)


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor behind a value that never changes, seen through ``Constant`` and ``Identity`` nodes."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Identity":
        return constant(node.inputs[0])
    attribute = node.attributes.get("value") if node.op_type == "Constant" else None
    return attribute.as_tensor() if attribute is not None and isinstance(attribute, ir.Attr) else None


def constants(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the values that hold a constant, by name: initializers and outputs of Constant nodes."""
    found = {value.name or "": value for value in graph.initializers.values() if not value.is_graph_input()}
    for node in graph:
        if node.op_type == "Constant" and constant(node.outputs[0]) is not None:
            found[node.outputs[0].name or ""] = node.outputs[0]
    return found


def is_float(tensor: ir.TensorProtocol) -> bool:
    """Tell whether a tensor holds float32, float16 or bfloat16 numbers."""
    return tensor.dtype in _FLOATS


def float32(tensor: ir.TensorProtocol) -> NDArray[np.float32]:
    """Return a float tensor as float32; 16-bit kinds are widened, which is exact."""
    return np.asarray(tensor.numpy().astype(np.float32, copy=False))


def shape_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Return the sizes of a constant as plain numbers."""
    return tuple(int(size) for size in tensor.shape.numpy())


class Named(Protocol):
    """A node, as far as its name goes."""

    name: str | None

    @property
    def op_type(self) -> str: ...  # noqa: D102


def name_nodes(nodes: Iterable[Named]) -> None:
    """Give every unnamed or twice-named node of a graph a stable name: its operator and its index."""
    nodes = list(nodes)
    taken = {node.name for node in nodes}  # a name that was given is never given to another node
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
        seen.add(node.name)


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = constant(value)
    assert tensor is not None  # constants() returns nothing else
    return tensor


def _spec(value: ir.Value) -> TensorSpec:
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    shape = value.shape if value.shape is not None else ()
    sizes = (size if isinstance(size, int) else str(size.value or "?") for size in shape)
    return TensorSpec(name=value.name or "", dtype=dtype, shape=tuple(sizes))


def _read(path: Path) -> tuple[onnx.ModelProto, Mapping[str, ir.LazyTensor]]:
    """Return a model, and those of its weights that were left in the file."""
    try:
        there = path.exists()
    except (OSError, ValueError):  # far too long, or a NUL byte inside
        raise ModelError(f"{str(path)[:_SHOWN]}...: is no path, of {len(str(path))} characters") from None
    if not there:
        raise ModelError(f"{path}: no such file")
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, and a model is a file; did you mean a .onnx file in it?")
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
            if not start:
                raise ModelError(f"{path}: is empty")
            if start == _ZIP:
                hint = "ptq_lab.load_session opens it, ptq-lab unpack makes a plain file of it"
                raise ModelError(f"{path}: is a container, not a plain ONNX file; {hint}")
        if path.stat().st_size >= LARGE_FILE:
            return read_without_weights(path)
        return onnx.load_model_from_string(path.read_bytes()), {}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DecodeError as error:
        raise ModelError(
            f"{path}: is not a complete ONNX file ({path.stat().st_size} bytes read); "
            "it was cut short, or is something else"
        ) from error


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    return (tensor for tensor in _weights(model) if isinstance(tensor, ir.ExternalTensor))


def _location(tensor: ir.ExternalTensor) -> Path:
    return Path(tensor.base_dir) / tensor.location


def _check_external(model: ir.Model, label: str) -> None:
    for tensor in _external(model):
        file = _location(tensor)
        if not file.is_file():
            raise ModelError(
                f"{label}: the weight {tensor.name} lies in {file}, which does not exist; "
                "external data must stay beside the model",
                tensor=tensor.name or "",
            )
        needed = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if file.stat().st_size < needed:
            raise ModelError(
                f"{label}: {file} has {file.stat().st_size} bytes, but the weight {tensor.name} ends at byte "
                f"{needed}; the file is incomplete",
                tensor=tensor.name or "",
            )


def _to_proto(model: ir.Model) -> onnx.ModelProto:
    if any(_external(model)):
        model = ir.external_data.load_to_model(model.clone())
    return _plain_proto(model)


def _plain_bytes(model: ir.Model) -> bytes:
    return bytes(_plain_proto(model).SerializeToString(deterministic=True))


def _plain_proto(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    stored = {tensor.name for tensor in proto.graph.initializer}  # their types need no second mention
    described = [value for value in proto.graph.value_info if value.name not in stored]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(described)
    return proto
