"""Two copies of a model run side by side, layer by layer: one in float, one with what is quantized so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.biases import set_bias
from ptq_lab.graph.segment import cut_segment
from ptq_lab.graph.stages import Stage, plan_stages
from ptq_lab.runtime import CPU, Feeds, open_session, run_session
from ptq_lab.search.shelf import IN_MEMORY, Shelf

FLOAT, QUANTIZED = "float", "quantized"


class Twins:
    """A float model and its quantized twin on the same samples, each node run once per copy.

    Use it as a context: :meth:`walk` stops in front of every layer; what is replaced there by :meth:`replace` acts on
    all that comes after.

    Parameters
    ----------
    model : Model
        Not changed.
    samples : iterable of {input name: array}
        Read once.
    memory : int
        Bytes of activations kept in memory; what is more waits in temporary files.
    providers : sequence of str
        onnxruntime execution providers.
    """

    def __init__(
        self, model: Model, samples: Iterable[Feeds], *, memory: int = IN_MEMORY, providers: Sequence[str] = CPU
    ) -> None:
        self._models = {FLOAT: model, QUANTIZED: model.clone()}
        self._count = 0
        self._providers = providers
        self._shelves = {side: Shelf(memory // 2) for side in self._models}
        self._nodes = {node.name or "": node for node in self._models[QUANTIZED].graph}
        self._known: set[str] = set()
        self._same: set[str] = set()  # tensors that nothing replaced has touched yet; kept once
        self._replaced: set[str] = set()
        for index, feeds in enumerate(samples):
            for name, array in feeds.items():
                self._shelves[FLOAT].put(name, index, array)
                self._same.add(name)
            self._count = index + 1

    def __enter__(self) -> Twins:
        return self

    def __exit__(self, *error: Any) -> None:
        for shelf in self._shelves.values():
            shelf.__exit__(None, None, None)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self._count

    @property
    def known(self) -> frozenset[str]:
        """Tensors whose values can be asked for now."""
        return frozenset(self._known)

    def walk(self, targets: Sequence[str]) -> Iterator[str]:
        """Yield one tensor after the other, its values known on both sides.

        Raises
        ------
        InferenceError
            If onnxruntime fails.
        """
        inputs = {spec.name for spec in self._models[FLOAT].inputs}
        inner = [target for target in targets if target not in inputs]
        stages = dict(zip(inner, plan_stages(self._models[FLOAT], inner), strict=True))
        for target in targets:
            stage = stages.get(target)
            if stage is not None and stage.makes:
                self._run(stage)
            yield target
            for name in stage.drops if stage is not None else ():
                self._drop(name)

    def values(self, tensor: str, sample: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a tensor of one sample, in float and as the quantized twin has it."""
        mine = self._shelves[FLOAT].take(tensor, sample)
        return mine, mine if tensor in self._same else self._shelves[QUANTIZED].take(tensor, sample)

    def replace(self, weights: Mapping[str, NDArray[np.float32]], biases: Mapping[str, NDArray[np.float32]]) -> None:
        """Give the quantized twin other weights, by tensor, and other biases, by node."""
        graph = self._models[QUANTIZED].graph
        for name, values in weights.items():
            self._replaced.add(name)
            overwrite(graph, name, values)
        for name, bias in biases.items():
            set_bias(graph, self._nodes[name], bias)

    def _run(self, stage: Stage) -> None:
        same = not self._replaced and all(name in self._same for name in stage.reads)
        for side in (FLOAT,) if same else (FLOAT, QUANTIZED):
            self._run_side(stage, side)
        self._known |= set(stage.makes)
        self._same |= set(stage.makes) if same else set()

    def _run_side(self, stage: Stage, side: str) -> None:
        segment = cut_segment(self._models[side], stage.reads, stage.makes)
        index = 0 if side == FLOAT else 1
        for value in segment.graph.inputs:
            if value.name in stage.reads:  # not every graph states all its types, but arrays have one
                value.type = ir.TensorType(ir.DataType.from_numpy(self.values(value.name, 0)[index].dtype))
        session = open_session(segment, providers=self._providers)
        reads = [value.name or "" for value in segment.graph.inputs]
        for sample in range(self._count):
            feeds = {read: self.values(read, sample)[index] for read in reads}
            for name, array in run_session(session, feeds).items():
                self._shelves[side].put(name, sample, array)

    def _drop(self, tensor: str) -> None:
        for sample in range(self._count):
            for shelf in self._shelves.values():
                shelf.drop(tensor, sample)
        self._known.discard(tensor)


def overwrite(graph: ir.Graph, name: str, values: NDArray[np.float32]) -> None:
    """Replace a constant for all who read it: an initializer or what a Constant node gives."""
    found = graph.initializers.get(name)
    if found is not None:
        tensor = found.const_value
        assert tensor is not None  # an initializer has one
        found.const_value = ir.tensor(values.astype(tensor.dtype.numpy()), name=name)
        return
    node = next(node for node in graph if node.op_type == "Constant" and node.outputs[0].name == name)
    old = node.attributes["value"].as_tensor()
    node.attributes["value"] = ir.AttrTensor("value", ir.tensor(values.astype(old.dtype.numpy())))
