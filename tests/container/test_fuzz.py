"""A changed container is refused with a message, or is still the same; writing one leaves all of it or nothing."""

from __future__ import annotations

import errno
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptq_lab.container import load_session, pack, unpack
from ptq_lab.container.archive import MANIFEST, SKELETON, ArchiveWriter
from ptq_lab.errors import ModelError, OutputError, PtqLabError
from tests.conftest import files
from tests.container.packed import Pair, both, read_everything
from tests.models import model, node, random

quietly = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A container of three weights, in several layouts."""
    weights = {"a": random(40, 60), "b": random(60, 50), "c": random(50, 8)}
    nodes = [node("MatMul", ["x", "a"], ["h"]), node("MatMul", ["h", "b"], ["g"]), node("MatMul", ["g", "c"], ["y"])]
    proto = model(nodes, {"x": (2, 40)}, ["y"], weights)
    return both(proto, tmp_path_factory.mktemp("fuzz"), 5)


def refused_or_equal(path: Path, wanted: dict[str, Any]) -> bool:
    """Read a container; tell whether it was refused, in one line."""
    try:
        found = read_everything(path)
    except PtqLabError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.startswith(path.name)
        assert "\n" not in said
        return True
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    return False


@quietly
@given(places=st.lists(st.integers(0, 10**6), min_size=1, max_size=4), cut=st.none() | st.integers(0, 10**6))
def test_flipped_bits_and_cut_ends_are_refused_with_a_message(
    pair: Pair, tmp_path: Path, places: list[int], cut: int | None
) -> None:
    whole = pair.container.read_bytes()
    changed = bytearray(whole)
    for place in places:
        changed[place // 8 % len(changed)] ^= 1 << place % 8
    if cut is not None:
        del changed[cut % len(whole) :]
    path = tmp_path / "fuzz.ptqz"
    path.write_bytes(changed)
    assert refused_or_equal(path, read_everything(pair.container)) == (bytes(changed) != whole)
    if bytes(changed) != whole:
        with pytest.raises(PtqLabError):
            unpack(path, tmp_path / "out.onnx")
        assert files(tmp_path) == ["fuzz.ptqz"]


@quietly
@given(order=st.permutations(range(5)), again=st.booleans())
def test_entries_in_another_order_are_refused_or_read_the_same(
    pair: Pair, tmp_path: Path, order: list[int], again: bool
) -> None:
    with zipfile.ZipFile(pair.container) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    assert len(entries) == len(order)
    path = tmp_path / "order.ptqz"
    with ArchiveWriter(path) as writer:
        for name, data in (entries[index] for index in order):
            (writer.deflate if name in (MANIFEST, SKELETON) else writer.store)(name, data)
    refused_or_equal(path, read_everything(pair.container))
    if again:  # as another program would write it
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as other:
            for name, data in (entries[index] for index in order):
                other.writestr(name, data)
        path.write_bytes(buffer.getvalue())
        assert refused_or_equal(path, read_everything(pair.container))


@quietly
@given(first=st.integers(0, 2), second=st.integers(0, 2))
def test_streams_under_each_others_names_are_refused_by_the_name_of_the_tensor(
    pair: Pair, tmp_path: Path, first: int, second: int
) -> None:
    with zipfile.ZipFile(pair.container) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    names = f"tensors/{first}", f"tensors/{second}"
    entries[names[0]], entries[names[1]] = entries[names[1]], entries[names[0]]
    path = tmp_path / "swapped.ptqz"
    with ArchiveWriter(path) as writer:
        for name, data in entries.items():
            (writer.deflate if name in (MANIFEST, SKELETON) else writer.store)(name, data)
    if first == second:
        assert path.read_bytes() == pair.container.read_bytes()
        return
    with pytest.raises(ModelError, match=r"the tensor [abc] ") as caught:
        load_session(path)
    assert caught.value.tensor in "abc"


@pytest.mark.parametrize("room", [0, 100, 3000, 5000])
def test_a_full_disk_is_said_and_leaves_no_file(
    room: int, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.ptqz"
    old.write_bytes(b"old")
    left = [room]
    write = zipfile.ZipFile.writestr

    def full(self: zipfile.ZipFile, info: Any, data: bytes, **how: Any) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, info, data, **how)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OutputError, match=r"cannot be written .No space left on device.") as caught:
        pack(pair.plain, old)
    assert "\n" not in str(caught.value)
    assert old.read_bytes() == b"old"
    assert files(tmp_path) == ["old.ptqz"]
