"""docs/format.md is enough: a reader written from it alone, in plain Python, decodes what the writer writes."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptq_lab.container import write_container
from ptq_lab.graph import load_model
from ptq_lab.numerics.code_layout import Layout
from ptq_lab.numerics.coding import encode_codes
from tests.container.packed import read_everything
from tests.graph.quantized import plan_of
from tests.models import OPERATOR_MODELS, half_precision


class Reader:
    """Sections 1 to 5 of the page."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        self.manifest = json.loads(self.archive.read("manifest.json"))
        assert (self.manifest["format"], self.manifest["version"]) == ("ptqz", 1)
        skeleton = self.archive.read("skeleton.onnx")
        assert hashlib.sha256(skeleton).hexdigest() == self.manifest["skeleton"]["sha256"]
        tail = path.read_bytes()[self.archive.getinfo("skeleton.onnx").header_offset : -30]
        assert self.archive.comment == f"{zlib.crc32(tail):08x}".encode()

    def tensors(self) -> dict[str, list[Any]]:
        return {tensor["name"]: self.tensor(tensor) for tensor in self.manifest["tensors"]}

    def tensor(self, tensor: dict[str, Any]) -> list[Any]:
        data = self.archive.read(f"tensors/{tensor['stream']}")
        assert (len(data), zlib.crc32(data)) == (tensor["size"], tensor["crc32"])
        count = 1
        for size in tensor["shape"]:
            count *= size
        cut = Cut(data)
        if "plain" in tensor:
            kind = {"FLOAT": "f", "DOUBLE": "d", "FLOAT16": "e", "INT8": "b", "UINT8": "B"}[
                tensor.get("dtype", "FLOAT")
            ]
            return cut.planes(tensor["plain"], count, kind)
        channels = tensor["shape"][tensor["axis"]] if "axis" in tensor else 1
        scale = cut.planes(tensor["scale"], channels, "f")
        offset = cut.planes(tensor["offset"], channels, "f") if "offset" in tensor else None
        codes = self.codes(tensor["codes"], cut, count)
        inner = 1
        for size in tensor["shape"][tensor.get("axis", -1) + 1 :]:
            inner *= size
        values = []
        for place, code in enumerate(codes):
            channel = place // inner % channels if "axis" in tensor else 0
            value = np.float32(code) * np.float32(scale[channel])
            value = value if offset is None else value + np.float32(offset[channel])
            values.append(np.float16(value) if tensor.get("dtype") == "FLOAT16" else value)
        return values

    def codes(self, layout: dict[str, Any], cut: Cut, count: int) -> list[int]:
        lengths = iter(layout["sections"])
        n = layout.get("kept", 0) if "rest" in layout else count
        places = list(range(count))
        if "rest" in layout:
            if layout.get("spaced"):
                places = running(cut.planes([next(lengths) for _ in range(4)], n, "I"))
            else:
                mask = fields(cut.section(next(lengths), -(-count // 8)), 1, count, False)
                places = [place for place, bit in enumerate(mask) if bit]
            assert len(places) == n
        width, shift = layout.get("width", 8), layout.get("shift", 0)
        planar = layout.get("planar", False)
        numbers = fields(cut.section(next(lengths), -(-n * width // 8)), width, n, planar)
        for part in [8] * (shift // 8) + [each for each in (4, 2, 1) if shift % 8 & each]:
            below = fields(cut.section(next(lengths), -(-n * part // 8)), part, n, True)
            numbers = [number << part | bits for number, bits in zip(numbers, below, strict=True)]
        if size := layout.get("levels", 0):
            levels = cut.planes([next(lengths) for _ in range(4)], size, "i")
            codes = [levels[number] for number in numbers]
        else:
            codes = [number + layout.get("low", 0) for number in numbers]
        if size := layout.get("outliers", 0):
            where = running(cut.planes([next(lengths) for _ in range(4)], size, "I"))
            for place, z in zip(where, cut.planes([next(lengths) for _ in range(4)], size, "I"), strict=True):
                codes[place] = -(z >> 1) - 1 if z % 2 else z >> 1
        assert next(lengths, None) is None
        whole = [layout.get("rest", 0)] * count
        for place, code in zip(places, codes, strict=True):
            whole[place] = code
        return whole


class Cut:
    """Section 3 of the page."""

    def __init__(self, data: bytes) -> None:
        self.data, self.start = data, 0

    def section(self, length: int, size: int) -> bytes:
        part = self.data[self.start : self.start + length]
        self.start += length
        whole = part if length == size else zlib.decompress(part, -15)
        assert len(whole) == size
        return whole

    def planes(self, lengths: list[int], count: int, kind: str) -> list[Any]:
        assert len(lengths) == struct.calcsize(kind)
        planes = [self.section(length, count) for length in lengths]
        return [struct.unpack(f"<{kind}", bytes(number))[0] for number in zip(*planes, strict=True)]


def fields(data: bytes, width: int, count: int, planar: bool) -> list[int]:
    lanes, numbers = 8 // width, [0] * (len(data) * 8 // width)
    for index, byte in enumerate(data):
        for lane in range(lanes):
            place = index + lane * len(data) if planar else index * lanes + lane
            numbers[place] = byte >> (lane * width) & ((1 << width) - 1)
    return numbers[:count]


def running(distances: list[int]) -> list[int]:
    places, place = [], 0
    for distance in distances:
        place += distance
        places.append(place)
    return places


@pytest.mark.parametrize("bits", [1, 3, 5, 8, 13])
@pytest.mark.parametrize("name", ["Conv", "Gather", "MatMul", "ConvTranspose", "half"])
def test_a_reader_from_the_page_alone_decodes_every_weight(name: str, bits: int, tmp_path: Path) -> None:
    tiny = half_precision() if name == "half" else OPERATOR_MODELS[name]()
    original = load_model(tiny.proto)
    write_container(original, plan_of(original, bits), tmp_path / "c.ptqz")
    theirs, ours = Reader(tmp_path / "c.ptqz").tensors(), read_everything(tmp_path / "c.ptqz")
    assert theirs.keys() == ours.keys()
    for tensor, values in theirs.items():
        assert np.array_equal(np.array(values, ours[tensor].dtype), ours[tensor].reshape(-1))


def histograms() -> dict[str, NDArray[np.int16]]:
    """Codes that make the writer take each of its steps."""
    rng = np.random.default_rng(1)
    sparse = np.where(rng.random(6000) < 0.8, 3, np.rint(rng.normal(0, 9, 6000)))
    sparser = np.where(rng.random(6000) < 0.985, -2, np.rint(rng.normal(0, 9, 6000)))
    tails = np.rint(rng.laplace(0, 2, 6000))
    tails[::500] = np.arange(12) * 700 + 500
    spaced = rng.choice([-12_000, 5, 700], 6000)
    wide = np.rint(rng.normal(0, 900, 6000))
    return {
        name: codes.astype(np.int16)
        for name, codes in {
            "mask": sparse,
            "distances": sparser,
            "outliers": tails,
            "levels": spaced,
            "shift": wide,
        }.items()
    }


STEPS = {"mask": "rest", "distances": "spaced", "outliers": "outliers", "levels": "levels", "shift": "shift"}


@pytest.mark.parametrize("step", STEPS)
def test_the_page_describes_every_step_that_the_writer_takes(step: str) -> None:
    codes = histograms()[step]
    coded = encode_codes(codes)
    record = json.loads(json.dumps(coded.layout.to_dict()))
    assert STEPS[step] in record
    reader = Reader.__new__(Reader)
    assert reader.codes(record, Cut(coded.data), codes.size) == codes.tolist()


def test_the_page_names_every_key_that_a_manifest_can_have() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    keys = {"format", "version", "writer", "skeleton", "tensors", "name", "shape", "stream", "size", "crc32", "sha256"}
    keys |= {"dtype", "bits", "axis", "by_row", "scale", "offset", "codes", "plain", *Layout.__slots__}
    assert not [key for key in sorted(keys) if f"`{key}`" not in page]
