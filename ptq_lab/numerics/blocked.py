"""Codes in blocks along a product's inner axis, in the byte order of onnxruntime's ``MatMulNBits``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCKED_WIDTHS = (2, 4, 8)  # widths that fill a byte without a rest


def pack_blocks(codes: NDArray[np.uint8], *, bits: int, block: int) -> NDArray[np.uint8]:
    """Pack unsigned codes of a weight, output channel by output channel, block by block.

    Parameters
    ----------
    codes : ndarray of uint8, shape (N, K)
        One row per output channel, each code in ``0 .. 2**bits - 1``.
    bits : int
        2, 4 or 8.
    block : int
        Codes of a row that share a scale: a power of two, at least 16.

    Returns
    -------
    ndarray of uint8, shape (N, ceil(K / block), block * bits / 8)
        The first code of a byte in its lowest bits; the last block is filled up with zeros.

    Raises
    ------
    ValueError
        For another width or block, or a code that needs more bits.

    Notes
    -----
    Layout of input ``B`` of ``com.microsoft.MatMulNBits`` (onnxruntime, ContribOperators).

    Examples
    --------
    >>> pack_blocks(np.arange(16, dtype=np.uint8)[None], bits=4, block=16)[0, 0].tolist()
    [16, 50, 84, 118, 152, 186, 220, 254]
    """
    if bits not in BLOCKED_WIDTHS:
        raise ValueError(f"{bits} bits cannot be packed in blocks; 2, 4 or 8 wanted")
    if block < 16 or block & (block - 1):
        raise ValueError(f"a block of {block} codes; a power of two from 16 on wanted")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"the code {codes.max()} needs more than {bits} bits")
    rows, length = codes.shape
    blocks, lanes = -(-length // block), 8 // bits
    padded = np.zeros((rows, blocks * block), np.uint8)
    padded[:, :length] = codes
    fields = padded.reshape(rows, blocks, block // lanes, lanes)
    shifts = np.arange(lanes, dtype=np.uint8) * np.uint8(bits)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(fields << shifts, axis=-1)
    return packed
