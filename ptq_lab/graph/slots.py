"""A model whose weights are handed in when it is loaded, or when it runs, instead of standing in the file."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq_lab.graph.model import Model, constant, constants, shape_of

NOWHERE = "handed-in"  # the file that the weights claim to be in; nobody opens it


def open_slots(model: Model, tensors: Sequence[str], *, as_inputs: bool) -> bytes:
    """Return a model, as the bytes of a file, that lacks some of its weights.

    Parameters
    ----------
    model : Model
        Not changed.
    tensors : sequence of str
        Names of constants of the main graph.
    as_inputs : bool
        They become inputs, given at every run; otherwise initializers that claim to be in another file, which
        onnxruntime takes from its caller when it loads the model.
    """
    copy = model.clone()
    graph = copy.graph
    holders = constants(graph)
    for name in tensors:
        holder = holders[name]
        tensor = constant(holder)
        assert tensor is not None  # constants() returns nothing else
        shape = ir.Shape(shape_of(tensor))
        slot = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape)
        producer = holder.producer()
        holder.replace_all_uses_with(slot, replace_graph_outputs=True)
        if producer is None:
            del graph.initializers[name]
        else:
            graph.remove(producer, safe=True)
        if as_inputs:
            graph.inputs.append(slot)
        else:
            slot.const_value = ir.ExternalTensor(
                NOWHERE, 0, tensor.nbytes, tensor.dtype, shape=shape, name=name, base_dir=""
            )
            graph.register_initializer(slot)
    return bytes(ir.to_proto(copy.ir_model).SerializeToString(deterministic=True))
