"""Bad input: one clear line of the right kind, saying where, what and what to do, and nothing is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ptq_lab.errors import (
    ConfigError,
    InferenceError,
    ModelError,
    NotImplementedYet,
    OutputError,
    PtqLabError,
    SampleError,
)
from ptq_lab.flags import check_optimize, parse_input_shape
from ptq_lab.pipeline import preview, quantize
from ptq_lab.progress import Step
from tests.graph.test_opset_raising import with_function
from tests.models import FLOAT, conv_relu, model, node, random

GOOD: dict[str, Any] = {"quant_type": "WEIGHT_QUANT", "bit_num": 8, "min_quant_weight_channel": 0}


@dataclass
class Request:
    """A call of `quantize`, good until a case spoils one part of it."""

    folder: Path
    source: Any = None
    common: dict[str, Any] = field(default_factory=lambda: dict(GOOD))
    output: Any = None
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = self.write(conv_relu().proto)
        self.output = self.folder / "out" / "q.onnx"
        self.output.parent.mkdir()

    def write(self, proto: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
        path = self.folder / name
        path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
        return path

    def run(self) -> Any:
        return quantize(self.source, {"common_quant_param": self.common}, self.output, **self.more)


def spoil_weight(value: float) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        proto = conv_relu().proto
        weight = random(5, 3, 3, 3)
        weight[1, 2, 0, 0] = value
        proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
        request.source = request.write(proto)

    return spoil


def external(request: Request) -> Path:
    path = request.folder / "model.onnx"
    onnx.save(conv_relu().proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return request.folder / "w.bin"


def no_data(request: Request) -> None:
    external(request).unlink()


def short_data(request: Request) -> None:
    data = external(request)
    data.write_bytes(data.read_bytes()[:100])


def truncated(request: Request) -> None:
    whole = conv_relu().proto.SerializeToString()
    request.source = request.write(whole[: len(whole) // 2])


def raw(content: bytes) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.source = request.write(content)

    return spoil


def proto(build: Callable[[], onnx.ModelProto]) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.source = request.write(build())

    return spoil


def unknown_operator() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Frobnicate", ["h"], ["y"])]
    return model(nodes, {"x": (1, 9)}, {"y": FLOAT}, {"w": random(9, 9)})


def unknown_domain() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"], domain="nobody.knows")]
    return model(nodes, {"x": (1, 9)}, {"y": FLOAT}, {"w": random(9, 9)}, domains=["nobody.knows"])


def future_opset() -> onnx.ModelProto:
    return model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 9)}, ["y"], {"w": random(9, 9)}, opset=99)


def shapes_that_clash() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])]
    return model(nodes, {"x": (2, 9)}, ["y"], {"w": random(9, 8), "b": random(7)})


def dangling() -> onnx.ModelProto:
    return model([node("MatMul", ["x", "nowhere"], ["y"])], {"x": (1, 9)}, ["y"])


def change(**parts: Any) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        for name, value in parts.items():
            setattr(request, name, value(request) if callable(value) else value)

    return spoil


def common(**options: Any) -> Callable[[Request], None]:
    def spoil(request: Request) -> None:
        request.common |= options
        request.common = {key: value for key, value in request.common.items() if value is not None}

    return spoil


def odd_width(spoil: Callable[[Request], None]) -> Callable[[Request], None]:
    def both(request: Request) -> None:
        spoil(request)
        request.common |= {"bit_num": 5, "enable_encode": True}

    return both


def output(place: Callable[[Request], Any]) -> Callable[[Request], None]:
    return change(output=place)


def onto_data(request: Request) -> Path:
    return external(request)


def folder_with_suffix(request: Request) -> Path:
    (request.folder / "dd.onnx").mkdir()
    return request.folder / "dd"


REFUSED = r"model\.onnx: onnxruntime [\d.]+ refuses it \("

Case = tuple[Callable[[Request], None], type[PtqLabError], str]

CASES: dict[str, Case] = {
    # the model
    "missing model": (change(source=lambda r: r.folder / "none.onnx"), ModelError, r"none\.onnx: no such file"),
    "model is a folder": (change(source=lambda r: r.folder), ModelError, r"is a folder, and a model is a file"),
    "truncated model": (truncated, ModelError, r"model\.onnx: is not a complete ONNX file \(\d+ bytes read\)"),
    "random bytes": (raw(np.random.default_rng(1).bytes(3000)), ModelError, r"model\.onnx: "),
    "empty file": (raw(b""), ModelError, r"model\.onnx: is empty"),
    "external data missing": (no_data, ModelError, r"weight [wb] lies in .*w\.bin, which does not exist"),
    "external data cut": (short_data, ModelError, r"w\.bin has 100 bytes, but the weight \w ends at byte \d+"),
    "NaN weight": (
        spoil_weight(np.nan),
        ModelError,
        r"/c/Conv \(Conv\): the weight w holds 1 NaN or infinite values of 135; .*skip_quant_node=/c/Conv",
    ),
    "infinite weight": (spoil_weight(-np.inf), ModelError, r"the weight w holds 1 NaN or infinite values of 135"),
    "unknown operator": (
        proto(unknown_operator),
        InferenceError,
        r"model\.onnx: onnxruntime [\d.]+ refuses it \(.*Frob",
    ),
    "unknown domain": (proto(unknown_domain), InferenceError, REFUSED + ".*nobody"),
    "opset of the future": (
        proto(future_opset),
        InferenceError,
        r"model\.onnx: onnxruntime .* refuses it \(FAIL : ONNX Runtime.*Opset 99",
    ),
    "shapes that clash": (proto(shapes_that_clash), InferenceError, r"(refuses it|running the model on x) .*"),
    "input from nowhere": (
        proto(dangling),
        ModelError,
        r"model\.onnx: the graph is damaged \(the MatMul node /y/MatMul takes nowhere, which nothing gives",
    ),
    "unknown operator, raised": (
        odd_width(proto(lambda: unknown_operator())),
        InferenceError,
        r"model\.onnx: onnxruntime .* refuses it",
    ),
    "model is None": (
        change(source=None),
        ModelError,
        r"model: NoneType given; a path, an onnx\.ModelProto or a ptq_lab\.Model wanted",
    ),
    "model is an array": (change(source=random(3, 3)), ModelError, r"model: ndarray given"),
    # where the result goes
    "output is a number": (output(lambda r: 5), OutputError, r"output: 5 given; the path of a file wanted"),
    "output becomes a folder": (
        output(folder_with_suffix),
        OutputError,
        r"dd: becomes .*dd\.onnx, which is a folder; choose another name",
    ),
    "output under a file": (
        output(lambda r: r.source / "q.onnx"),
        OutputError,
        r"q\.onnx: .*model\.onnx is a file, not a folder; choose another place",
    ),
    "output far under a file": (
        output(lambda r: r.source / "a" / "q.onnx"),
        OutputError,
        r"model\.onnx is a file, not",
    ),
    "output is a folder": (output(lambda r: r.output.parent), OutputError, r"out: is a folder; name a file in it"),
    "output ends in a slash": (output(lambda r: f"{r.folder}/new/"), OutputError, r"is a folder; name a file in it"),
    "output folder missing": (output(lambda r: r.folder / "no" / "q.onnx"), OutputError, r"does not exist; make it"),
    "output is the model": (output(lambda r: r.source), OutputError, r"is the original model; name another file"),
    "output is its data": (output(onto_data), OutputError, r"is external data of the original model; name another"),
    "output cannot be written": (output(lambda r: "/proc/q.onnx"), OutputError, r"/proc/q\.onnx: "),
    # the configuration
    "17 bits": (common(bit_num=17), ConfigError, r"\[common_quant_param\] bit_num: .*17.*0\.\.16"),
    "odd width without encoding": (
        common(bit_num=5, enable_encode=False),
        ConfigError,
        r"\[common_quant_param\] .*(enable_encode|bit_num).*8.*16",
    ),
    "no kind": (common(quant_type=None), ConfigError, r"\[common_quant_param\] quant_type: is missing.*WEIGHT_QUANT"),
    "unknown kind": (common(quant_type="WEIGHT"), ConfigError, r"quant_type: .*'?WEIGHT'?.*WEIGHT_QUANT"),
    "unknown key": (common(bit_nun=8), ConfigError, r"bit_nun.*bit_num"),
    "broken pattern": (common(skip_quant_node="re:("), ConfigError, r"skip_quant_node: .*regular expression"),
    "dynamic": (common(quant_type="DYNAMIC_QUANT"), ConfigError, r"quant_type: .*no MatMul or Gemm.*Conv: .*slower"),
    # what it is compared and judged on
    "calibration without samples": (
        common(quant_type="FULL_QUANT"),
        SampleError,
        r"FULL_QUANT needs calibration data; give samples \(--samples in %%quantize and ptq-lab\), or write",
    ),
    "samples missing": (change(more=lambda r: {"samples": r.folder / "no"}), SampleError, r"no"),
    "no samples": (change(more={"samples": []}), SampleError, r"sample"),
    "samples of another shape": (
        change(more={"samples": [{"x": np.zeros((1, 4, 6, 6), np.float32)}]}),
        SampleError,
        r"x.*(4|3)",
    ),
    "metric missing": (change(more=lambda r: {"evaluate": r.folder / "no.npz"}), SampleError, r"no\.npz"),
    "input shape": (change(more={"input_shape": "x:1,0,6,6"}), ConfigError, r"inputShape: 'x:1,0,6,6' is not a name"),
    "optimize": (change(more={"optimize": "everything"}), ConfigError, r"optimize: 'everything' is not one of none"),
}


def everything_under(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_one_line_of_the_right_kind_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    spoil, kind, words = CASES[name]
    request = Request(tmp_path)
    spoil(request)
    before, folders = everything_under(tmp_path), sorted(path for path in tmp_path.rglob("*") if path.is_dir())
    with pytest.raises(PtqLabError) as caught:
        request.run()
    text = str(caught.value)
    assert type(caught.value) is kind, f"{type(caught.value).__name__}: {text}"
    assert re.search(words, text), text
    assert "\n" not in text
    assert "Traceback" not in text
    assert everything_under(tmp_path) == before
    assert sorted(path for path in tmp_path.rglob("*") if path.is_dir()) == folders


def test_the_request_that_the_cases_spoil_is_good(tmp_path: Path) -> None:
    request = Request(tmp_path)
    assert request.run().model_path == request.output


def test_what_onnxruntime_says_is_told_without_places_in_its_source(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "shape"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    clash = model(nodes, {"x": ("n", 20)}, ["y"], {"w": random(20, 30), "shape": np.array([7, 20])})
    for build in (future_opset, lambda: clash):
        with pytest.raises(InferenceError) as caught:
            quantize(build(), {"common_quant_param": GOOD}, tmp_path / "q.onnx")
        assert "onnxruntime_src" not in str(caught.value)
        assert "::" not in str(caught.value)


def test_all_problems_of_a_configuration_are_told_at_once(tmp_path: Path) -> None:
    request = Request(tmp_path)
    request.common |= {"bit_num": 17, "bit_nun": 1}
    with pytest.raises(ConfigError) as caught:
        request.run()
    assert len(caught.value.problems) == 2
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("as_text", [False, True])
def test_a_misspelt_section_is_named_before_what_is_missing_because_of_it(as_text: bool, tmp_path: Path) -> None:
    config = "[comon_quant_param]\nquant_type=WEIGHT_QUANT\n" if as_text else {"comon_quant_param": GOOD}
    with pytest.raises(ConfigError) as caught:
        quantize(Request(tmp_path).source, config)
    typo, missing = str(caught.value).splitlines()
    assert "[comon_quant_param] unknown section" in typo
    assert typo.endswith("did you mean common_quant_param?")
    assert "quant_type: is missing" in missing


def test_a_preview_of_no_model_is_refused_too() -> None:
    with pytest.raises(ModelError, match="model: NoneType given"):
        preview(None, {"common_quant_param": GOOD})  # type: ignore[arg-type]


def test_a_label_that_is_no_class_of_the_model_is_found_before_any_work(tmp_path: Path) -> None:
    proto = model([node("Gemm", ["x", "w"], ["y"])], {"x": ("N", 20)}, ["y"], {"w": random(20, 4)})
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", FLOAT, ("N", 4)))
    np.savez(tmp_path / "eval.npz", x=random(3, 20), labels=[0, 3, 4])
    steps: list[Step] = []
    with pytest.raises(SampleError, match=r"sample 2 is labelled 4, but the model has only 4 classes"):
        quantize(proto, {"common_quant_param": GOOD}, evaluate=tmp_path / "eval.npz", progress=steps.append)
    assert not steps


def test_a_preview_refuses_the_same_configurations(tmp_path: Path) -> None:
    source = Request(tmp_path).source
    unfinished = {"transform_quant_param": {"export_precision_mode": "FLOAT32"}}
    for options, kind in (
        ({"common_quant_param": GOOD | {"bit_num": 17}}, ConfigError),
        ({"common_quant_param": GOOD, **unfinished}, NotImplementedYet),
    ):
        with pytest.raises(kind):
            preview(source, options)


def test_widths_that_follow_from_runs_cannot_be_previewed(tmp_path: Path) -> None:
    budget = {"common_quant_param": GOOD | {"bit_num": 0}, "ptq_lab.mixed_bit": {"average_bits": 5}}
    with pytest.raises(ConfigError, match="only quantizing shows them"):
        preview(Request(tmp_path).source, budget)


def test_a_model_that_cannot_be_raised_says_so_and_names_a_way_out(tmp_path: Path) -> None:
    request = Request(tmp_path)
    odd_width(proto(lambda: with_function(13, "ReduceMean", axes=[1]).proto))(request)
    with pytest.raises(PtqLabError, match="bit_num=8 or 16") as caught:
        request.run()
    assert "\n" not in str(caught.value)
    assert not list(request.output.parent.iterdir())


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, {}),
        ("", {}),
        ("x:1,3,2,2", {"x": (1, 3, 2, 2)}),
        ("x:0:1, 2 ; y:4;", {"x:0": (1, 2), "y": (4,)}),
        ({"x": [1, 2], "y": (np.int64(3),)}, {"x": (1, 2), "y": (3,)}),
    ],
)
def test_input_shapes_are_read_from_text_and_mappings(value: Any, wanted: dict[str, tuple[int, ...]]) -> None:
    assert parse_input_shape(value) == wanted


@pytest.mark.parametrize(
    "value",
    ["x", "x:", ":1", "x:-1", "x:1,a", "x:1.5", "x=1", {"x": (0, 2)}, {"x": (-1,)}, {"x": ("a",)}, {"x": (1.5,)}],
)
def test_input_shapes_that_are_none_are_refused_in_one_line(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"inputShape: .* is not a name with sizes above 0") as caught:
        parse_input_shape(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["none", "general", "gpu_oriented", "ascend_oriented", "ascend_oriented:910b"])
def test_the_originals_values_of_optimize_are_accepted_with_a_note(value: str) -> None:
    assert check_optimize(value, "CPU") == (f"optimize={value} has no meaning for an ONNX model and was not used",)
    assert check_optimize(None, "CPU") == ()


def test_a_read_only_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    request = Request(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a superuser may write everywhere
    steps: list[Step] = []
    request.more["progress"] = steps.append
    with pytest.raises(OutputError, match="nothing can be written into"):
        request.run()
    assert not steps


def test_float_weights_in_sixteen_bits_that_are_not_finite_are_counted_too(tmp_path: Path) -> None:
    weight = random(20, 20).astype(np.float16)
    weight[0, 0] = np.inf
    built = model([node("MatMul", ["x", "w"], ["y"])], {"x": (TensorProto.FLOAT16, (1, 20))}, {"y": 10}, {"w": weight})
    with pytest.raises(ModelError, match="1 NaN or infinite values of 400"):
        quantize(built, {"common_quant_param": GOOD}, tmp_path / "q.onnx")


@pytest.mark.parametrize(("fp16", "layout", "key"), [("off", None, "fp16"), (False, "NHCW", "inputDataFormat")])
def test_flags_that_python_would_misread_are_refused(fp16: object, layout: object, key: str) -> None:
    from ptq_lab.flags import check_values

    with pytest.raises(ConfigError, match=key):
        check_values(fp16, layout)


def test_a_model_whose_outputs_are_nan_is_refused_although_the_weight_stays_float(tmp_path: Path) -> None:
    spoilt = model(
        [node("Conv", ["x", "w"], ["y"], name="conv")], {"x": (1, 3, 8, 8)}, ["y"], {"w": random(8, 3, 3, 3)}
    )
    holder = spoilt.graph.initializer[0]
    values = onnx.numpy_helper.to_array(holder).copy()
    values[:, 0, 0, 0] = np.nan
    holder.CopyFrom(onnx.numpy_helper.from_array(values, holder.name))
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "skip_quant_node": "conv"}}
    with pytest.raises(InferenceError, match="the output y of the float model is NaN on all 8 inputs"):
        quantize(spoilt, config, tmp_path / "q.onnx")
    assert list(tmp_path.iterdir()) == []
