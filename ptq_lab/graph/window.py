"""How a layer moves over its input, read off its node."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq_lab.numerics.windows import Window, same_pads


def window_of(node: ir.Node, weight: Sequence[int], size: Sequence[int]) -> Window:
    """Return the window of a Conv.

    Parameters
    ----------
    node : onnx_ir.Node
    weight : sequence of int
        Shape of its weight, (out, in / groups, kernel...).
    size : sequence of int
        Spatial sizes of the input, needed for ``auto_pad``.
    """
    kernel = tuple(weight[2:])
    rank = len(kernel)
    ones = (1,) * rank
    pads = tuple(node.attributes.get_ints("pads", (0,) * (2 * rank)))
    window = Window(
        kernel=kernel,
        strides=tuple(node.attributes.get_ints("strides", ones)),
        dilations=tuple(node.attributes.get_ints("dilations", ones)),
        pads_begin=pads[:rank],
        pads_end=pads[rank:],
        groups=node.attributes.get_int("group", 1),
    )
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return window
    begin, end = same_pads(size, window, upper=auto == "SAME_UPPER")
    return Window(
        kernel=kernel,
        strides=window.strides,
        dilations=window.dilations,
        pads_begin=begin,
        pads_end=end,
        groups=window.groups,
    )
