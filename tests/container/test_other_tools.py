"""Models that other tools have quantized go into a container without a change, and so do files of earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ptq_lab
from ptq_lab import demo
from ptq_lab.container import Container, load_session, pack, unpack
from tests import foreign
from tests.conftest import settings
from tests.container.packed import largest_difference

DIGITS = demo.load("digits_cnn")
WORDS = demo.load("digits_transformer")


def samples_of(chosen: demo.Demo, count: int = 8) -> list[dict[str, Any]]:
    data = np.load(chosen.calib_path)
    names = [spec.name for spec in load_session(chosen.model_path).get_inputs()]
    return [{name: data[name][index : index + 1] for name in names} for index in range(count)]


MAKERS = {
    "Q/DQ": lambda path: foreign.static(DIGITS.model_path, path, floats(DIGITS), "QDQ"),
    "QOperator": lambda path: foreign.static(DIGITS.model_path, path, floats(DIGITS), "QOperator"),
    "run-time quantized": lambda path: foreign.dynamic(WORDS.model_path, path),
}


def floats(chosen: demo.Demo) -> list[dict[str, Any]]:
    return [{name: array.astype(np.float32) for name, array in feeds.items()} for feeds in samples_of(chosen)]


@pytest.mark.parametrize("how", MAKERS)
def test_what_another_tool_quantized_is_smaller_in_a_container_and_answers_the_same(how: str, tmp_path: Path) -> None:
    plain = MAKERS[how](tmp_path / "other.onnx")
    feeds = (samples_of(WORDS) if how == "run-time quantized" else floats(DIGITS))[0]
    packed = pack(plain, tmp_path / "q.ptqz")
    assert packed.stat().st_size < 0.9 * plain.stat().st_size
    wanted = load_session(plain, intra_op_num_threads=1).run(None, feeds)
    assert largest_difference(wanted, load_session(packed, intra_op_num_threads=1).run(None, feeds)) == 0.0
    again = unpack(packed, tmp_path / "again.onnx")
    assert foreign.stored(again).keys() == foreign.stored(plain).keys()
    for name, array in foreign.stored(plain).items():
        assert foreign.stored(again)[name].tobytes() == array.tobytes()
    assert largest_difference(wanted, load_session(again, intra_op_num_threads=1).run(None, feeds)) == 0.0


def test_a_file_that_lost_its_metadata_packs_without_loss_but_by_its_bytes(tmp_path: Path) -> None:
    plain = ptq_lab.quantize(DIGITS.model_path, settings(4), tmp_path / "q.onnx").model_path
    proto = onnx.load(plain)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "bare.onnx")
    packed = pack(tmp_path / "bare.onnx", tmp_path / "bare.ptqz")
    with Container(packed) as container:
        assert not [tensor for tensor in container.manifest.tensors if tensor.codes is not None]
    feeds = floats(DIGITS)[0]
    wanted = load_session(plain, intra_op_num_threads=1).run(None, feeds)
    assert largest_difference(wanted, load_session(packed, intra_op_num_threads=1).run(None, feeds)) == 0.0
