"""Inputs and outputs of one model under the names and types of another, so that both take the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ptq_lab.errors import ModelError
from ptq_lab.graph.model import Model
from ptq_lab.graph.tensors import TensorSpec
from ptq_lab.graph.tool_names import plain_name

_WIDER = {
    "f": "f",
    "i": "iuf",
    "u": "iuf",
    "b": "iufb",
}  # kinds of numbers that hold all of a kind, as far as it matters


@dataclass(frozen=True, slots=True)
class Aligned:
    """A model that takes and gives what another does.

    Attributes
    ----------
    model : Model
        The given one, if nothing had to be changed.
    inputs : tuple of TensorSpec
        Those of the other model, with the sizes that this one fixes.
    narrowed : mapping of str to numpy.dtype
        Inputs whose values are cast to a type that may not hold them.
    notes : tuple of str
        What was not found under its name, or is of another type.
    """

    model: Model
    inputs: tuple[TensorSpec, ...]
    narrowed: dict[str, np.dtype[Any]]
    notes: tuple[str, ...]


def align_ports(first: Model, second: Model) -> Aligned:
    """Return the second model with the inputs and outputs of the first.

    Parameters
    ----------
    first, second : Model
        Not changed.

    Raises
    ------
    ModelError
        If the second needs an input that the first does not have, or of another shape, or they share no output.

    Notes
    -----
    What has another name is matched without what tools add to it, and else by its place, if the shapes agree.
    """
    inputs = _match(first.inputs, second.inputs)
    _check_inputs(first, second, inputs)
    outputs = _match(first.outputs, second.outputs)
    if not outputs:
        raise ModelError(
            f"{second.label}: gives {_list(second.outputs)}, and {first.label} gives {_list(first.outputs)}; "
            "models with no output in common cannot be compared"
        )
    notes = [*_input_notes(first, second, inputs), *_output_notes(first, second, outputs)]
    narrowed = {
        one.name: other.dtype
        for one, other in inputs
        if other.dtype != one.dtype and not _holds(one.dtype, other.dtype)
    }
    same = all(one.name == other.name and one.dtype == other.dtype for one, other in inputs)
    same &= len(inputs) == len(first.inputs) and all(one.name == other.name for one, other in outputs)
    model = second if same else _renamed(first, second, inputs, outputs)
    return Aligned(model, tuple(_narrow(spec, inputs) for spec in first.inputs), narrowed, tuple(notes))


Ports = list[tuple[TensorSpec, TensorSpec]]


def _match(first: Sequence[TensorSpec], second: Sequence[TensorSpec]) -> Ports:
    """Pair by name, by name without additions, and by place among those left over, as far as shapes agree.

    What has one name and two shapes is paired at the very end, so that it can be said what is wrong.
    """
    pairs: Ports = []
    same: tuple[Callable[[TensorSpec, TensorSpec], bool], ...] = (
        lambda one, other: one.name == other.name and _shapes_agree(one, other),
        lambda one, other: plain_name(one.name) == plain_name(other.name) and _shapes_agree(one, other),
        lambda one, other: _shapes_agree(one, other),
        lambda one, other: one.name == other.name,
    )
    for agree in same:
        for one in first:
            if any(one == each for each, _ in pairs):
                continue
            taken = [other for _, other in pairs]
            found = next((other for other in second if other not in taken and agree(one, other)), None)
            if found is not None:
                pairs.append((one, found))
    return sorted(pairs, key=lambda pair: list(first).index(pair[0]))


def _check_inputs(first: Model, second: Model, pairs: Ports) -> None:
    taken = [other for _, other in pairs]
    missing = [spec for spec in second.inputs if spec not in taken]
    if missing:
        raise ModelError(
            f"{second.label}: needs the input {_list(missing)}, and {first.label} takes {_list(first.inputs)}; "
            "models are compared on the same samples, so their inputs have to agree in names or shapes"
        )
    for one, other in pairs:
        if not _shapes_agree(one, other):
            raise ModelError(
                f"{second.label}: takes {_list([other])}, and {first.label} takes {_list([one])}; "
                "models are compared on the same samples, so these have to have one shape"
            )


def _shapes_agree(one: TensorSpec, other: TensorSpec) -> bool:
    if len(one.shape) != len(other.shape):
        return False
    sizes = zip(one.shape, other.shape, strict=True)
    return all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in sizes)


def _input_notes(first: Model, second: Model, pairs: Ports) -> list[str]:
    notes = []
    for one, other in pairs:
        if one.name != other.name:
            notes.append(f"the input {one.name} of {first.label} is called {other.name} in {second.label}")
        if one.dtype != other.dtype:
            notes.append(
                f"the input {one.name} is {one.dtype} in {first.label} and {other.dtype} in {second.label}: it is cast"
            )
    kept = [one for one, _ in pairs]
    notes += [f"{second.label} does not take the input {spec.name}" for spec in first.inputs if spec not in kept]
    return notes


def _output_notes(first: Model, second: Model, pairs: Ports) -> list[str]:
    notes = [
        f"the output {one.name} of {first.label} is called {other.name} in {second.label}"
        for one, other in pairs
        if one.name != other.name
    ]
    for one, other in pairs:
        if one.dtype.kind != other.dtype.kind:
            notes.append(
                f"the output {one.name} is {one.dtype} in {first.label} and {other.dtype} in {second.label}; "
                "their numbers are compared as they are"
            )
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    alone = [(first, spec) for spec in first.outputs if spec not in ones]
    alone += [(second, spec) for spec in second.outputs if spec not in others]
    notes += [f"only {model.label} has the output {spec.name}; it is not compared" for model, spec in alone]
    return notes


def _holds(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Tell whether values of one type can be given as another: floats become floats, whatever their width."""
    if wanted.kind not in _WIDER.get(given.kind, "f"):
        return wanted.kind == "V"  # bfloat16
    return wanted.kind == "f" or np.can_cast(given, wanted, "safe")


def _narrow(spec: TensorSpec, pairs: Ports) -> TensorSpec:
    other = next((other for one, other in pairs if one == spec), None)
    if other is None:
        return spec
    sizes = (
        b if isinstance(a, str) and not isinstance(b, str) else a for a, b in zip(spec.shape, other.shape, strict=True)
    )
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=tuple(sizes))


def _list(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in specs) or "nothing"


def _renamed(first: Model, second: Model, inputs: Ports, outputs: Ports) -> Model:
    copy = second.clone()
    graph = copy.graph
    ports = {value.name: value for value in graph.inputs}
    results = {value.name: index for index, value in enumerate(graph.outputs)}
    names = {one.name for one in (*first.inputs, *first.outputs)}
    kept = {one.name for one, other in inputs if one.name == other.name and one.dtype == other.dtype}
    kept |= {one.name for one, other in outputs if one.name == other.name}
    _make_room(graph, names - kept)
    for one, other in outputs:
        if one.name != other.name:
            _rename_output(graph, results[other.name], one.name)
    for one, other in inputs:
        if one.name != other.name or one.dtype != other.dtype:
            _replace_input(graph, ports[other.name], one)
    given = {value.name for value in graph.inputs}
    for spec in first.inputs:
        if spec.name not in given:  # nobody reads it, but it may be handed in
            graph.inputs.append(_value(spec))
    return copy


def _make_room(graph: ir.Graph, names: set[str]) -> None:
    """Give other names to whatever has one of these."""
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    taken = {value.name for value in values} | set(graph.initializers) | names
    for value in [*values, *graph.initializers.values()]:
        if value.name in names:
            name = f"{value.name}_"
            while name in taken:
                name += "_"
            taken.add(name)
            value.name = name


def _rename_output(graph: ir.Graph, index: int, name: str) -> None:
    value = graph.outputs[index]
    same = ir.node("Identity", [value], name=f"{name}.port")
    same.outputs[0].name, same.outputs[0].shape, same.outputs[0].type = name, value.shape, value.type
    graph.append(same)
    graph.outputs[index] = same.outputs[0]


def _replace_input(graph: ir.Graph, value: ir.Value, spec: TensorSpec) -> None:
    index = list(graph.inputs).index(value)
    given = _value(spec)
    graph.inputs[index] = given
    cast = ir.node("Cast", [given], {"to": value.dtype or ir.DataType.FLOAT}, name=f"{spec.name}.port")
    cast.outputs[0].name = f"{spec.name}.cast"
    first = next(iter(graph), None)
    if first is None:
        graph.append(cast)
    else:
        graph.insert_before(first, cast)
    value.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)


def _value(spec: TensorSpec) -> ir.Value:
    return ir.Value(
        name=spec.name, type=ir.TensorType(ir.DataType.from_numpy(spec.dtype)), shape=ir.Shape(list(spec.shape))
    )
