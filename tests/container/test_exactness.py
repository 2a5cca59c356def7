"""A container holds the model that a plain file holds: the same outputs, and the same file when it is unpacked."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import ptq_lab
from ptq_lab import demo
from ptq_lab.container import Container, load_session, pack, unpack, write_container
from ptq_lab.errors import InferenceError, ModelError, OutputError, PlanError
from ptq_lab.graph import Rules, apply_plan, load_model
from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.numerics.step import decode_step, find_step, step_codes
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Step
from tests.conftest import files, settings
from tests.container.packed import both, largest_difference, read_everything, write_both
from tests.graph.quantized import plan_of
from tests.models import OPERATOR_MODELS, WIRINGS, conv_relu, gemm, matmul, model, node, random, shared

MODELS = {**OPERATOR_MODELS, **WIRINGS}
every_model = pytest.mark.parametrize("name", MODELS)
each_storage = pytest.mark.parametrize("bits", [1, 3, 4, 7, 8, 11, 16])  # every number of parts, and natives

some_storage = pytest.mark.parametrize("bits", [3, 8, 11])


def outputs(path: Path, feeds: dict[str, Any], **options: Any) -> list[NDArray[Any]]:
    return list(load_session(path, intra_op_num_threads=1, **options).run(None, feeds))


@some_storage
@every_model
def test_a_session_of_a_container_answers_as_the_plain_file_to_the_last_bit(
    name: str, bits: int, tmp_path: Path
) -> None:
    tiny = MODELS[name]()
    pair = both(tiny.proto, tmp_path, bits)
    assert largest_difference(outputs(pair.container, tiny.feeds), outputs(pair.plain, tiny.feeds)) == 0.0


@some_storage
@every_model
def test_an_unpacked_container_is_the_plain_file_byte_for_byte(name: str, bits: int, tmp_path: Path) -> None:
    pair = both(MODELS[name]().proto, tmp_path, bits)
    assert unpack(pair.container, tmp_path / "again.onnx").read_bytes() == pair.plain.read_bytes()


@each_storage
@every_model
def test_packing_a_plain_file_finds_every_code_again(name: str, bits: int, tmp_path: Path) -> None:
    tiny = MODELS[name]()
    pair = both(tiny.proto, tmp_path, bits)
    with Container(pack(pair.plain, tmp_path / "found.ptqz")) as container:
        _, plan = container.quantized()
    found = {entry.tensor: entry.weight for entry in plan.entries}
    for entry in pair.plan.entries:
        weight = found[entry.tensor]
        assert weight is not None
        assert entry.weight is not None
        assert np.array_equal(weight.codes, entry.weight.codes)
        assert weight.scale.tobytes() == entry.weight.scale.tobytes()
        assert weight.offset.tobytes() == entry.weight.offset.tobytes()
    assert largest_difference(outputs(tmp_path / "found.ptqz", tiny.feeds), outputs(pair.plain, tiny.feeds)) == 0.0
    again = unpack(tmp_path / "found.ptqz", tmp_path / "again.onnx").read_bytes()
    if name != "Slice":  # its axes stand in a constant of another name then
        assert again == pair.plain.read_bytes()


@pytest.mark.parametrize("target", [0.3, 0.02, 0.001])
def test_a_single_step_for_a_tensor_unpacks_into_the_narrowest_width_that_holds_its_codes(
    target: float, tmp_path: Path
) -> None:
    tiny = conv_relu()
    original = load_model(tiny.proto)
    entry = plan_of(original, 8).entries[0]
    values = original.weight(entry.tensor)
    found = find_step(values, target)
    codes = step_codes(values, found.step)
    bits = next(bits for bits in range(1, 17) if -(1 << bits - 1) <= codes.min() and codes.max() < 1 << bits - 1)
    scale = np.array(found.spread * found.step, np.float32)
    one = np.ones(())
    weight = QuantizedWeight(
        codes=codes.astype(np.int8 if bits <= 8 else np.int16),
        bits=bits,
        axis=None,
        scale=scale,
        offset=np.array(found.mean, np.float32),
        step=one,
        zero_point=one.astype(np.int32),
        spread_correction=one,
        mean_correction=one,
    )
    plan = QuantPlan((replace(entry, bits=bits, axis=None, weight=weight),))
    pair = write_both(original, plan, tmp_path)
    decoded = read_everything(pair.container)[entry.tensor]
    assert np.array_equal(decoded, decode_step(codes, float(scale), found.mean))
    assert unpack(pair.container, tmp_path / "again.onnx").read_bytes() == pair.plain.read_bytes()
    assert largest_difference(outputs(pair.container, tiny.feeds), outputs(pair.plain, tiny.feeds)) == 0.0


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    first, second = both(gemm().proto, tmp_path, 5), both(gemm().proto, tmp_path / "second", 5)
    assert first.container.read_bytes() == second.container.read_bytes()


def test_a_shared_weight_and_a_twin_of_it_are_stored_once(tmp_path: Path) -> None:
    twins = {"a": random(30, 30), "b": random(30, 30)}
    nodes = [node("MatMul", ["x", "a"], ["h"]), node("MatMul", ["h", "a"], ["g"]), node("MatMul", ["g", "b"], ["y"])]
    pair = both(model(nodes, {"x": (2, 30)}, ["y"], twins), tmp_path, 4)
    with Container(pair.container) as container:
        assert [tensor.name for tensor in container.manifest.tensors] == ["a", "b"]
        assert {tensor.stream for tensor in container.manifest.tensors} == {0}
    assert len(pair.plan.entries) == 2
    shared_pair = both(shared().proto, tmp_path, 4)
    assert len(read_everything(shared_pair.container)) == len(shared_pair.plan.entries)


def test_large_tensors_that_stay_float_come_back_bit_for_bit(tmp_path: Path) -> None:
    kept = random(300, 200)
    kept[0, :3] = np.nan, -0.0, np.inf
    nodes = [node("MatMul", ["x", "w"], ["h"], name="first"), node("MatMul", ["h", "kept"], ["y"], name="second")]
    proto = model(nodes, {"x": (2, 50)}, ["y"], {"w": random(50, 300), "kept": kept})
    pair = both(proto, tmp_path, 4, rules=Rules(min_channels=0, skip=("second",)))
    decoded = read_everything(pair.container)
    assert set(decoded) == {"w", "kept"}
    assert decoded["kept"].tobytes() == kept.tobytes()
    assert pair.container.stat().st_size < kept.nbytes + 50 * 300 * 4 / 8
    assert unpack(pair.container, tmp_path / "again.onnx").read_bytes() == pair.plain.read_bytes()


@pytest.mark.parametrize("kind", ["FULL_QUANT", "DYNAMIC_QUANT"])
def test_a_model_of_integer_arithmetic_packs_without_a_change(kind: str, tmp_path: Path) -> None:
    chosen = demo.load("digits_cnn" if kind == "FULL_QUANT" else "digits_transformer")
    config: dict[str, Any] = {"common_quant_param": {"quant_type": kind}}
    plain = ptq_lab.quantize(chosen.model_path, config, tmp_path / "q.onnx", samples=chosen.calib_path).model_path
    packed = pack(plain, tmp_path / "q")
    assert packed == tmp_path / "q.ptqz"
    assert packed.stat().st_size < plain.stat().st_size
    data = np.load(chosen.calib_path)
    session = load_session(plain)
    feeds = {spec.name: data[spec.name][:1].astype(data[spec.name].dtype) for spec in session.get_inputs()}
    assert largest_difference(session.run(None, feeds), load_session(packed).run(None, feeds)) == 0.0
    unpacked = unpack(packed, tmp_path / "again.onnx")
    assert largest_difference(session.run(None, feeds), load_session(unpacked).run(None, feeds)) == 0.0


def test_a_quantized_demo_packs_and_unpacks_to_the_very_same_file(tmp_path: Path) -> None:
    for name in demo.NAMES:
        plain = ptq_lab.quantize(demo.load(name).model_path, settings(3), tmp_path / "q.onnx").model_path
        packed = ptq_lab.pack(plain, tmp_path / "q.ptqz")
        assert packed.stat().st_size < plain.stat().st_size
        assert ptq_lab.unpack(packed, tmp_path / "again.onnx").read_bytes() == plain.read_bytes()


def test_a_file_with_halved_floats_packs_and_answers_the_same(tmp_path: Path) -> None:
    chosen = demo.load("digits_transformer")
    plain = ptq_lab.quantize(chosen.model_path, settings(4), tmp_path / "q.onnx", fp16=True).model_path
    packed = pack(plain, tmp_path / "q.ptqz")
    assert len(read_everything(packed)) >= 5
    data = np.load(chosen.calib_path)
    session = load_session(plain)
    feeds = {spec.name: data[spec.name][:2] for spec in session.get_inputs()}
    assert largest_difference(session.run(None, feeds), load_session(packed).run(None, feeds)) == 0.0
    unpacked = unpack(packed, tmp_path / "again.onnx")
    assert largest_difference(session.run(None, feeds), load_session(unpacked).run(None, feeds)) == 0.0


def test_the_float_model_of_a_container_holds_the_decoded_weights(tmp_path: Path) -> None:
    pair = both(matmul().proto, tmp_path, 6)
    with Container(pair.container) as container:
        decoded = container.model()
        for entry in pair.plan.entries:
            assert entry.weight is not None
            assert np.array_equal(decoded.weight(entry.tensor), dequantize_weight(entry.weight))


def test_a_container_lists_as_an_ordinary_zip_file(tmp_path: Path) -> None:
    pair = both(matmul().proto, tmp_path, 6)
    with zipfile.ZipFile(pair.container) as archive:
        assert archive.testzip() is None
        skeleton = onnx.load_from_string(archive.read("skeleton.onnx"))
    assert {tensor.name for tensor in skeleton.graph.initializer if tensor.external_data} == set(matmul().weights)


def test_progress_counts_the_weights(tmp_path: Path) -> None:
    original = load_model(matmul().proto)
    plan, steps = plan_of(original, 4), list[Step]()
    write_container(original, plan, tmp_path / "c.ptqz", progress=steps.append)
    assert [(step.done, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]


def test_plans_that_a_container_cannot_hold_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    original = load_model(matmul().proto)
    plan = plan_of(original, 4)
    bare = replace(plan, entries=tuple(replace(entry, weight=None) for entry in plan.entries))
    with pytest.raises(PlanError, match="run round_weights first"):
        write_container(original, bare, tmp_path / "c.ptqz")
    strange = replace(plan, entries=(replace(plan.entries[0], tensor="nobody"),))
    with pytest.raises(PlanError, match="no weight named nobody"):
        write_container(original, strange, tmp_path / "c.ptqz")
    with pytest.raises(OutputError, match="cannot be written"):
        write_container(original, plan, tmp_path / "nowhere" / "c.ptqz")


def test_failed_packing_leaves_the_old_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = both(matmul().proto, tmp_path, 4)
    target = tmp_path / "old.ptqz"
    target.write_bytes(b"old")

    def interrupted(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(pair.plain, target, progress=interrupted)
    assert target.read_bytes() == b"old"
    assert files(tmp_path) == ["old.ptqz", "packed.ptqz", "plain.onnx"]


def test_models_that_cannot_be_packed_are_refused_in_words(tmp_path: Path) -> None:
    pair = both(matmul().proto, tmp_path, 4)
    onnx.save(matmul().proto, tmp_path / "float.onnx")
    with pytest.raises(ModelError, match="is a float model, and a container is for quantized ones"):
        pack(tmp_path / "float.onnx", tmp_path / "c.ptqz")
    with pytest.raises(ModelError, match="is a container already"):
        pack(pair.container, tmp_path / "c.ptqz")
    with pytest.raises(ModelError, match=r"is no \.ptqz container"):
        unpack(pair.plain, tmp_path / "c.onnx")
    with pytest.raises(ModelError, match="No such file"):
        unpack(tmp_path / "missing.ptqz", tmp_path / "c.onnx")
    with pytest.raises(OutputError, match="is the original model"):
        unpack(pair.container, pair.container)
    with pytest.raises(OutputError, match="is a folder"):
        pack(pair.plain, tmp_path)
    assert files(tmp_path) == ["float.onnx", "packed.ptqz", "plain.onnx"]


def test_a_model_whose_decoding_was_changed_keeps_those_codes_as_they_are(tmp_path: Path) -> None:
    pair = both(matmul().proto, tmp_path, 8)
    proto = onnx.load(pair.plain)
    scaled = next(each for each in proto.graph.node if each.op_type == "Mul")
    scaled.op_type = "Div"
    onnx.save(proto, tmp_path / "changed.onnx")
    packed = pack(tmp_path / "changed.onnx", tmp_path / "changed.ptqz")
    feeds = matmul().feeds
    assert largest_difference(outputs(packed, feeds), outputs(tmp_path / "changed.onnx", feeds)) == 0.0
    with Container(packed) as container:
        assert sum(tensor.codes is not None for tensor in container.manifest.tensors) == len(pair.plan.entries) - 1


def test_sessions_take_the_options_of_onnxruntime_by_name(tmp_path: Path) -> None:
    pair, feeds = both(matmul().proto, tmp_path, 4), matmul().feeds
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = load_session(pair.container, intra_op_num_threads=1, graph_optimization_level=level)
    assert session.get_session_options().graph_optimization_level == level
    finished = onnxruntime.SessionOptions()
    assert largest_difference(outputs(pair.container, feeds, sess_options=finished), session.run(None, feeds)) <= 1e-5
    assert load_session(pair.plain, providers=["CPUExecutionProvider"]).get_providers() == ["CPUExecutionProvider"]


def test_sessions_of_nothing_and_with_strange_options_are_refused_in_words(tmp_path: Path) -> None:
    pair = both(matmul().proto, tmp_path, 4)
    with pytest.raises(InferenceError, match="threads: is no option of a session"):
        load_session(pair.container, threads=1)
    with pytest.raises(InferenceError, match="intra_op_num_threads: 'many'"):
        load_session(pair.container, intra_op_num_threads="many")
    with pytest.raises(ModelError, match="no such file"):
        load_session(tmp_path / "missing.ptqz")
    with pytest.raises(ModelError, match="is a folder"):
        load_session(tmp_path)
    (tmp_path / "text.ptqz").write_text("hello")
    with pytest.raises(InferenceError, match=r"text\.ptqz: onnxruntime .* refuses it"):
        load_session(tmp_path / "text.ptqz")


def test_apply_plan_takes_what_a_container_gives_back(tmp_path: Path) -> None:
    pair = both(conv_relu().proto, tmp_path, 3)
    with Container(pair.container) as container:
        base, plan = container.quantized()
        assert plan.entries[0].nodes == pair.plan.entries[0].nodes
        assert apply_plan(base, plan).serialize() == pair.plain.read_bytes()


def test_metadata_that_speaks_of_other_tensors_leaves_them_as_they_are(tmp_path: Path) -> None:
    numbers = {"w.codes": np.arange(30, dtype=np.uint8), "w.scale": random(30)}
    cast = [
        node("Cast", ["w.codes"], ["c"], to=1),
        node("Mul", ["c", "w.scale"], ["w"]),
        node("Add", ["x", "w"], ["y"]),
    ]
    proto = model(cast, {"x": (2, 30)}, ["y"], numbers)
    for widths in ('{"w": [3, 30]}', '{"w": [8, 30], "v": [99, 1]}', "{}"):
        del proto.metadata_props[:]
        proto.metadata_props.add(key="ptq_lab.plan", value=widths)
        onnx.save(proto, tmp_path / "foreign.onnx")
        packed = pack(tmp_path / "foreign.onnx", tmp_path / "foreign.ptqz")
        assert not read_everything(packed)
        assert unpack(packed, tmp_path / "again.onnx").is_file()
    proto.metadata_props[0].value = "no JSON"
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="is not what ptq_lab writes"):
        pack(tmp_path / "foreign.onnx", tmp_path / "foreign.ptqz")
