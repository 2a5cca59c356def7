"""A damaged or hostile container is refused with one message; nothing wrong is ever decoded."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptq_lab.container import Container, load_session, unpack
from ptq_lab.container.archive import MANIFEST, SKELETON, ArchiveWriter
from ptq_lab.container.write import checks_of
from ptq_lab.errors import ModelError
from tests.conftest import files
from tests.container.packed import Pair, both, read_everything, rewritten
from tests.models import model, node, random


def small() -> onnx.ModelProto:
    return model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 12)}, ["y"], {"w": random(12, 9)})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A container of one weight."""
    return both(small(), tmp_path_factory.mktemp("small"), 4)


def refused(path: Path) -> ModelError:
    """Make sure that a container is refused however it is opened, and return the reason."""
    with pytest.raises(ModelError) as caught:
        read_everything(path)
    with pytest.raises(ModelError):
        load_session(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_flipped_bit_is_found_wherever_it_is(pair: Pair, tmp_path: Path) -> None:
    whole, path = pair.container.read_bytes(), tmp_path / "flipped.ptqz"
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(ModelError):
            read_everything(path)


def test_a_flipped_bit_in_a_tensor_is_reported_with_its_name(pair: Pair, tmp_path: Path) -> None:
    with zipfile.ZipFile(pair.container) as archive:
        info = archive.getinfo("tensors/0")
    start, path = info.header_offset + 30 + len(info.filename), tmp_path / "flipped.ptqz"
    for bit in range(8 * info.file_size):
        flipped = bytearray(pair.container.read_bytes())
        flipped[start + bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        with pytest.raises(ModelError, match="the tensor w cannot be decoded: its checksum is wrong") as caught:
            read_everything(path)
        assert caught.value.tensor == "w"
    with pytest.raises(ModelError, match="the tensor w"):
        load_session(path)
    with pytest.raises(ModelError, match="the tensor w"):
        unpack(path, tmp_path / "out.onnx")
    assert files(tmp_path) == ["flipped.ptqz"]


def test_a_container_cut_short_is_refused_wherever_it_ends(pair: Pair, tmp_path: Path) -> None:
    whole, path = pair.container.read_bytes(), tmp_path / "short.ptqz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_everything(path)


@pytest.mark.parametrize("more", [b"\0", b"PK", b"PK\x05\x06" + bytes(18)], ids=repr)
def test_bytes_behind_the_end_and_in_front_of_the_start_are_refused(pair: Pair, tmp_path: Path, more: bytes) -> None:
    path = tmp_path / "longer.ptqz"
    path.write_bytes(pair.container.read_bytes() + more)
    refused(path)
    path.write_bytes(b"PK\x03\x04" + more + pair.container.read_bytes())
    refused(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 5000), junk=st.binary(min_size=1, max_size=40))
def test_overwritten_bytes_are_found_wherever_they_are(pair: Pair, tmp_path: Path, start: int, junk: bytes) -> None:
    whole = pair.container.read_bytes()
    start %= len(whole)
    changed = (whole[:start] + junk + whole[start + len(junk) :])[: len(whole)]
    path = tmp_path / "junk.ptqz"
    path.write_bytes(changed)
    if changed != whole:
        with pytest.raises(ModelError):
            read_everything(path)


def newer(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
    manifest["version"] = 2
    manifest["tensors"] = "something new"


def test_a_newer_format_says_that_a_newer_ptq_lab_is_needed(pair: Pair) -> None:
    assert "format version 2, and this ptq_lab reads versions up to 1" in str(refused(rewritten(pair.container, newer)))


def tensor(**changes: Any) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    def change(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
        manifest["tensors"][0].update(changes)

    return change


def layout(**changes: Any) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    def change(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
        manifest["tensors"][0]["codes"].update(changes)

    return change


def skeleton(edit: Callable[[onnx.ModelProto], None]) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    def change(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
        proto = onnx.load_from_string(entries[SKELETON])
        edit(proto)
        entries[SKELETON] = proto.SerializeToString()
        checks = checks_of(entries[SKELETON])
        manifest["skeleton"] = {"size": checks.size, "crc32": checks.crc32, "sha256": checks.sha256}

    return change


def elsewhere(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].external_data[0].value = "../../secret"


def attribute_elsewhere(proto: onnx.ModelProto) -> None:
    value = onnx.TensorProto(name="c", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="/etc/hostname")
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=value))


def another_slot(proto: onnx.ModelProto) -> None:
    extra = proto.graph.initializer.add()
    extra.CopyFrom(proto.graph.initializer[0])
    extra.name = "v"


def no_slot(proto: onnx.ModelProto) -> None:
    del proto.graph.initializer[:]


def twice(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
    manifest["tensors"].append(manifest["tensors"][0])


def stray(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
    entries["tensors/1"] = b"?"


def gone(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
    del entries["tensors/0"]


def not_the_bytes(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
    entries["tensors/0"] = bytes(len(entries["tensors/0"]))


def same_checksum(manifest: dict[str, Any], entries: dict[str, bytes]) -> None:
    manifest["tensors"][0]["sha256"] = "0" * 64


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, bytes]], None], str]] = {
    "a shape of another size": (tensor(shape=[12, 10]), "another shape"),
    "a giant shape": (tensor(shape=[1 << 40, 1 << 20]), "claims to hold"),
    "a negative size": (tensor(shape=[-1, 9]), "no whole number"),
    "a shape that is no list": (tensor(shape=108), "no list"),
    "many axes": (tensor(shape=[1] * 99), "99 axes"),
    "another stream": (tensor(stream=1), "out of turn"),
    "a longer stream": (tensor(size=1 << 40), "its sections have"),
    "another type": (tensor(dtype="FLOAT16"), "another shape or element type"),
    "an unknown type": (tensor(dtype="STRING"), "dtype"),
    "an axis outside": (tensor(axis=2), "axis"),
    "a width outside": (tensor(bits=17), "bits is 17"),
    "codes wider than said": (tensor(bits=2), "do not fit into 2 bits"),
    "no name": (tensor(name=None), "no text"),
    "no codes": (tensor(codes=[]), "no object"),
    "scales of no length": (tensor(scale=[]), "its sections have"),
    "a wider field": (layout(width=8), "deflate stream|cannot stand for"),
    "an unknown step": (layout(magic=1), "'magic' is not known"),
    "a giant section": (layout(sections=[1 << 50]), "its sections have"),
    "a giant table": (layout(levels=1 << 50), "sections"),
    "a giant mask": (layout(rest=0, kept=1 << 60), "sections"),
    "the same tensor twice": (twice, "the same name"),
    "an entry too many": (stray, "tensors/1 belongs to no tensor"),
    "an entry too few": (gone, "tensors/0 is missing"),
    "bytes of another tensor": (not_the_bytes, "its checksum is wrong"),
    "a false SHA-256": (same_checksum, "its SHA-256 is wrong"),
    "a weight in another file": (skeleton(elsewhere), "lies in another file"),
    "a constant in another file": (skeleton(attribute_elsewhere), "lies in another file"),
    "a slot too many": (skeleton(another_slot), "does not belong there"),
    "a slot too few": (skeleton(no_slot), "no place for the tensor w"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_container_that_lies_is_refused_with_the_reason(what: str, pair: Pair) -> None:
    change, message = HOSTILE[what]
    error = refused(rewritten(pair.container, change))
    assert re.search(message, str(error)), str(error)


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "tensors/../../x", "tensors/01", "tensors/-1", "readme"])
def test_names_that_lead_elsewhere_or_do_not_belong_are_refused(name: str, pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "named.ptqz"
    with ArchiveWriter(path) as writer:
        for known, data in entries_of(pair.container).items():
            (writer.store if known.startswith("tensors") else writer.deflate)(known, data)
        writer.store(name, b"x")
    assert "does not belong there" in str(refused(path))
    assert files(tmp_path) == ["named.ptqz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [MANIFEST, SKELETON, "tensors/0"])
def test_two_entries_of_one_name_are_refused(name: str, pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "twice.ptqz"
    with ArchiveWriter(path) as writer:
        for known, data in entries_of(pair.container).items():
            (writer.store if known.startswith("tensors") else writer.deflate)(known, data)
        writer.store(name, b"x")
    assert "two entries" in str(refused(path))


@pytest.mark.parametrize("name", [MANIFEST, SKELETON])
def test_an_entry_that_inflates_to_more_than_it_says_is_not_inflated(name: str, pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "bomb.ptqz"
    entries = entries_of(pair.container)
    entries[name] = bytes(1 << 24)
    with ArchiveWriter(path) as writer:
        for known, data in entries.items():
            (writer.store if known.startswith("tensors") else writer.deflate)(known, data)
    honest = path.read_bytes()
    said = struct.pack("<L", 1 << 24)
    assert honest.count(said) == 2  # in front of the entry, and in the directory
    path.write_bytes(resealed(honest.replace(said, struct.pack("<L", 1000))))
    assert f"{name} is not what its checksum says" in str(refused(path))
    path.write_bytes(resealed(honest.replace(said, struct.pack("<L", 0x7FFFFFFF))))
    assert f"{name} claims to be" in str(refused(path))


def resealed(data: bytes) -> bytes:
    """Return a container whose checksum of everything but the tensors is right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.getinfo(SKELETON).header_offset
    return data[:-8] + f"{zlib.crc32(data[start:-30]):08x}".encode()


def test_a_zip_file_of_other_programs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.ptqz"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MANIFEST, "{}")
    path.write_bytes(buffer.getvalue())
    assert "the header of manifest.json is not as it should be" in str(refused(path))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"[" * 100_000, b'{"format":"ptqz"}', b'{"format":"ptqz","version":"1"}', b"\xff"],
    ids=len,
)
def test_a_manifest_that_is_none_is_refused(text: bytes, pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "manifest.ptqz"
    with ArchiveWriter(path) as writer:
        for known, data in entries_of(pair.container).items():
            if known != MANIFEST:
                (writer.store if known.startswith("tensors") else writer.deflate)(known, data)
        writer.deflate(MANIFEST, text)
    assert "manifest.json cannot be used" in str(refused(path))


def test_a_whole_container_is_read(pair: Pair) -> None:
    assert set(read_everything(pair.container)) == {"w"}
    with Container(pair.container) as container:
        assert container.manifest.tensors[0].numpy_type == np.float32
