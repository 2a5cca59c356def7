"""What the arithmetic costs: 64 MB of float32 quantized and packed, as a ratio to copying it.

The subject is what the pipeline does to one weight: ranges, codes, the sums behind the correction, and the packing
that the decoding graph of that width needs. The reference is ``numpy.copyto`` of the same array into memory that is
there already. Both are measured in turn in one process; numpy uses one thread for either.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from bars import Cell, Table, arguments_parser, parse_widths
from numpy.typing import NDArray
from timing import in_turn, machine_facts

from ptq_lab.graph.decode import GraphWriter, StoredWeight
from ptq_lab.numerics import quantize_weight

# name: shape, channel axis, a table decoded by row
LAYOUTS: dict[str, tuple[tuple[int, ...], int | None, bool]] = {
    "matrix, axis 0": ((4096, 4096), 0, False),
    "matrix, axis 1": ((4096, 4096), 1, False),
    "matrix, per tensor": ((4096, 4096), None, False),
    "convolution 3x3, axis 0": ((1820, 1024, 3, 3), 0, False),
    "transposed convolution 3x3, axis 1": ((1820, 1024, 3, 3), 1, False),
    "embedding, by row": ((32768, 512), 0, True),
}
NATIVE_BAR, PACKED_BAR = 6.0, 10.0
COLUMNS = {"layout": 34, "bits": 4, "ratio": 32, "copy, all ms": 18}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--bits", type=parse_widths, default=parse_widths("1..16"), help="widths, e.g. 1..16 or 4,8")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of measurements (default %(default)s)")
    parser.add_argument("--layout", default="", help="only layouts with this in their name")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("layout", "bits"))
    numbers = np.random.default_rng(0).standard_normal(1 << 24, np.float32)
    for layout, (shape, axis, by_row) in LAYOUTS.items():
        if arguments.layout not in layout:
            continue
        values = numbers[: int(np.prod(shape))].reshape(shape)
        for bits in arguments.bits:
            row: dict[str, Cell] = {"layout": layout, "bits": bits}
            table.add(row | measure(values, bits, axis, by_row, arguments.pairs))
    table.finish(arguments, facts)


def measure(values: NDArray[np.float32], bits: int, axis: int | None, by_row: bool, pairs: int) -> dict[str, Cell]:
    """Return the measured part of a row: one layout at one width."""
    place = np.zeros_like(values)  # written once, so that its pages exist

    def copy() -> None:
        np.copyto(place, values)

    def store() -> StoredWeight:
        weight = quantize_weight(values, bits=bits, axis=axis)
        return StoredWeight(GraphWriter(ir.Graph([], [], nodes=[])), "weight", weight, by_row=by_row)

    times = in_turn(copy, store, pairs)
    bar = NATIVE_BAR if bits in (4, 8, 16) else PACKED_BAR
    return {"ratio": times.ratio(bar), "copy, all ms": times.milliseconds}


if __name__ == "__main__":
    main()
