"""`ptq-lab pack` and `ptq-lab unpack`: what they write, and what they say about wrong input."""

from __future__ import annotations

from pathlib import Path

import ptq_lab
from ptq_lab import demo
from tests.cli.conftest import Run
from tests.conftest import files, settings


def quantized(folder: Path) -> Path:
    return ptq_lab.quantize(demo.load("digits_cnn").model_path, settings(4), folder / "q.onnx").model_path


def test_a_model_packs_and_unpacks_to_the_same_file(run: Run, tmp_path: Path) -> None:
    plain = quantized(tmp_path)
    packed = run("pack", plain, "q")
    assert packed.code == 0, packed.err
    weights = len(ptq_lab.preview(demo.load("digits_cnn").model_path, settings(4)).entries)
    assert f"q.ptqz: {plain.stat().st_size:,} -> {(tmp_path / 'q.ptqz').stat().st_size:,} bytes" in packed.out
    assert f"{weights} weights as codes" in packed.out
    unpacked = run("unpack", "q.ptqz", "again.onnx")
    assert unpacked.code == 0, unpacked.err
    assert (tmp_path / "again.onnx").read_bytes() == plain.read_bytes()


def test_wrong_input_is_one_message_and_exit_2(run: Run, tmp_path: Path) -> None:
    plain = quantized(tmp_path)
    for arguments, message in (
        (("unpack", "missing.ptqz", "x.onnx"), "missing.ptqz: cannot be read"),
        (("unpack", plain, "x.onnx"), "q.onnx: is no .ptqz container"),
        (("pack", demo.load("digits_cnn").model_path, "x.ptqz"), "is a float model, and a container is for"),
        (("pack", "missing.onnx", "x.ptqz"), "missing.onnx: no such file"),
        (("pack", plain, tmp_path), "is a folder"),
    ):
        said = run(*arguments)
        assert said.code == 2
        assert message in said.err
        assert len(said.err.strip().splitlines()) == 1
    assert files(tmp_path) == ["q.onnx"]


def test_a_damaged_container_names_the_tensor_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    run("pack", quantized(tmp_path), "q.ptqz")
    data = bytearray((tmp_path / "q.ptqz").read_bytes())
    data[60] ^= 4  # in the first tensor
    (tmp_path / "q.ptqz").write_bytes(data)
    said = run("unpack", "q.ptqz", "again.onnx")
    assert said.code == 2
    assert "the tensor" in said.err
    assert not (tmp_path / "again.onnx").exists()
