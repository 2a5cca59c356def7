"""Layers left in float stay float in onnxruntime, wherever they stand between codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from ptq_lab.graph import load_model
from ptq_lab.graph.shield import shield_layers
from tests.integers import pictures, separable, to_int8
from tests.models import model, node, random

SELF_QUANTIZES = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 23)
only_where_it_happens = pytest.mark.skipif(not SELF_QUANTIZES, reason="this onnxruntime leaves float weights alone")

LAYERS: dict[str, dict[str, Any]] = {
    "Conv": {"weight": (6, 6, 3, 3)},
    "grouped Conv": {"weight": (6, 1, 3, 3), "group": 6},
    "Conv of one channel": {"weight": (6, 1, 3, 3), "channels": 1},
    "ConvTranspose": {"weight": (6, 4, 3, 3)},
    "Gemm": {"weight": (6, 5), "rank": 2},
    "Gemm transB": {"weight": (5, 6), "rank": 2, "transB": 1},
    "Gemm transA": {"weight": (6, 5), "rank": 2, "transA": 1},
}


def between_codes(kind: str, before: str = "", behind: str = "") -> Any:
    """A float layer with Q/DQ pairs around it; the weights of its first output dwarf the others'."""
    facts = dict(LAYERS[kind])
    weight = random(*facts.pop("weight"))
    outputs = 0 if ("Conv" in kind and "Transpose" not in kind) or "transB" in facts else 1
    np.moveaxis(weight, outputs, 0)[0] *= 300
    channels, rank = facts.pop("channels", 6), facts.pop("rank", 4)
    shape = (1, channels, 8, 8) if rank == 4 else (6, 6)
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["h0"])]
    operators: list[tuple[str, dict[str, Any]]] = [(kind.removeprefix("grouped ").split()[0], facts)]
    operators = [(before, {})] * bool(before) + operators + [(behind, {})] * bool(behind)
    for index, (operator, attributes) in enumerate(operators):
        more = {"kernel_shape": [2, 2]} if operator == "MaxPool" else attributes
        sources = [f"h{index}", "w"] if more is facts else [f"h{index}"]
        nodes.append(node(operator, sources, [f"h{index + 1}"], name="layer" if more is facts else None, **more))
    last = f"h{len(operators)}"
    nodes += [node("QuantizeLinear", [last, "s2", "z2"], ["q2"]), node("DequantizeLinear", ["q2", "s2", "z2"], ["y"])]
    numbers = {"s": np.float32(0.03), "z": np.uint8(100), "s2": np.float32(1.5), "z2": np.uint8(120), "w": weight}
    proto = model(nodes, {"x": shape}, ["y"], {name: np.asarray(value) for name, value in numbers.items()})
    return proto, {"x": random(*shape, seed=1)}


def steps_off(run: Any, built: Any, feeds: Any) -> float:
    outputs = [run(built, feeds, optimize=level)["y"] for level in ("off", "all")]
    return float(np.abs(outputs[0] - outputs[1]).max() / 1.5)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("behind", ["", "Relu"])
def test_a_float_layer_between_codes_computes_the_same_with_and_without_optimizations(
    run: Any, kind: str, behind: str
) -> None:
    proto, feeds = between_codes(kind, behind=behind)
    built = load_model(proto).clone()
    assert shield_layers(built.graph, ()) == ("layer",)
    assert steps_off(run, built, feeds) <= 1.001


@pytest.mark.parametrize(("before", "behind"), [("MaxPool", ""), ("", "MaxPool"), ("MaxPool", "MaxPool")])
def test_operators_that_move_codes_across_do_not_bring_the_rounding_back(run: Any, before: str, behind: str) -> None:
    proto, feeds = between_codes("Conv", before, behind)
    built = load_model(proto).clone()
    assert shield_layers(built.graph, ()) == ("layer",)
    assert steps_off(run, built, feeds) <= 1.001


@only_where_it_happens
@pytest.mark.parametrize("kind", ["Conv", "grouped Conv", "ConvTranspose", "Gemm"])
def test_without_the_shield_onnxruntime_rounds_the_layer(run: Any, kind: str) -> None:
    proto, feeds = between_codes(kind)
    assert steps_off(run, proto, feeds) > 1.5


def test_shielding_changes_no_number_and_touches_neither_integer_layers_nor_those_that_read_floats(run: Any) -> None:
    proto, feeds = between_codes("Conv")
    built = load_model(proto).clone()
    assert shield_layers(built.graph, {"layer"}) == ()
    shield_layers(built.graph, ())
    shielded, plain = (run(source, feeds, optimize="off")["y"] for source in (built, proto))
    np.testing.assert_array_equal(shielded, plain)
    weights = {"w": random(4, 3, 3, 3)}
    free = load_model(model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 3, 8, 8)}, ["y"], weights)).clone()
    assert shield_layers(free.graph, ()) == ()


@pytest.mark.parametrize("pool", [False, True])
def test_a_skipped_depthwise_layer_stays_as_good_as_float_inside_an_int8_model(run: Any, pool: bool) -> None:
    done = to_int8(separable(pool), pictures(), skip=("deep",))
    for feeds in done.samples:
        exact, off, on = (
            run(source, feeds, optimize=level)["y"]
            for source, level in ((done.original, "all"), (done.quantized, "off"), (done.quantized, "all"))
        )
        noise = np.linalg.norm(off - exact)
        assert np.linalg.norm(on - exact) <= 1.1 * noise
