"""Reading and writing models: what is accepted, what is refused in words, and that files are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ptq_lab.errors import ModelError, OutputError
from ptq_lab.graph import apply_plan, load_model, save_model
from tests.conftest import Run
from tests.graph.quantized import plan_of
from tests.models import brain_float, conv_relu, half_precision, listed_inputs, matmul, model, nameless, node, random


def large() -> onnx.ModelProto:
    """A model whose codes are large enough for onnx-ir to move them out."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])]
    return model(nodes, {"x": (2, 70)}, ["y"], {"w": random(70, 60), "b": random(60, seed=5)})


def save_external(folder: Path, *, big: bool = False, data: str = "weights.bin") -> Path:
    """Write a model with all its weights in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(large() if big else conv_relu().proto, path, save_as_external_data=True, location=data, size_threshold=0)
    return path


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def truncated(folder: Path) -> Path:
    path = folder / "cut.onnx"
    onnx.save(conv_relu().proto, path)
    cut(path, 0.6)
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "file.onnx"
        path.write_bytes(content)
        return path

    return write


def without_data(folder: Path) -> Path:
    path = save_external(folder)
    (folder / "weights.bin").unlink()
    return path


def with_sparse(folder: Path) -> Path:
    proto = conv_relu().proto
    numbers = onnx.numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    places = onnx.numpy_helper.from_array(np.zeros(1, np.int64))
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(numbers, places, [2, 2]))
    onnx.save(proto, folder / "sparse.onnx")
    return folder / "sparse.onnx"


def short_data(folder: Path) -> Path:
    path = save_external(folder)
    cut(folder / "weights.bin", 0.5)
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.onnx", "none.onnx: no such file"),
    "folder": (lambda folder: folder, "is a folder, and a model is a file"),
    "truncated": (truncated, "is not a complete ONNX file"),
    "random": (written(np.random.default_rng(0).bytes(5000)), "file.onnx: "),
    "text": (written(b"not a model at all\n" * 20), "file.onnx: "),
    "empty": (written(b""), "is empty"),
    "sparse": (with_sparse, "keeps 1 tensors as sparse initializers"),
    "no data": (without_data, "lies in .*weights.bin, which does not exist"),
    "short data": (short_data, "the weight [wb] ends at byte .*; the file is incomplete"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_whole_model_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    build, words = BROKEN[name]
    with pytest.raises(ModelError, match=words) as caught:
        load_model(build(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_path_may_be_text_or_a_path_and_a_model_is_passed_through(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(conv_relu().proto, path)
    loaded = load_model(str(path))
    assert loaded.digest() == load_model(path).digest()
    assert load_model(loaded) is loaded
    assert (loaded.label, loaded.path, loaded.size) == ("m.onnx", path, path.stat().st_size)


def test_inputs_and_outputs_are_described_with_dynamic_axes_and_without_defaults() -> None:
    loaded = load_model(listed_inputs().proto)
    assert [(spec.name, spec.dtype, spec.shape) for spec in loaded.inputs] == [
        ("x", np.dtype(np.float32), (1, 3, 6, 6))
    ]
    assert [spec.name for spec in loaded.outputs] == ["y"]


def test_names_that_were_given_stay_and_the_others_become_stable() -> None:
    names = [node.name for node in load_model(nameless().proto).graph]
    assert names == ["MatMul_0_", "MatMul_0", "twin", "MatMul_3"]
    assert names == [node.name for node in load_model(nameless().proto).graph]


@pytest.mark.parametrize("build", [half_precision, brain_float])
def test_sixteen_bit_weights_are_widened_exactly(build: Callable[..., object]) -> None:
    proto = build().proto  # type: ignore[attr-defined]
    stored = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    weight = load_model(proto).weight("table")
    assert weight.dtype == np.float32
    assert np.array_equal(weight, stored.astype(np.float32))


def test_external_data_are_found_beside_the_model_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    path = save_external(tmp_path / "deep" / "folder")
    monkeypatch.chdir(tmp_path)
    here = load_model("deep/folder/model.onnx")
    wanted = run(conv_relu().proto, conv_relu().feeds)["y"]
    assert np.array_equal(run(here.clone().serialize(), conv_relu().feeds)["y"], wanted)
    monkeypatch.chdir(tmp_path / "deep")
    assert np.array_equal(
        load_model(path).weight("w"), onnx.numpy_helper.to_array(conv_relu().proto.graph.initializer[0])
    )
    assert load_model(path).files == (path, path.parent / "weights.bin")
    assert load_model(path).size == sum(file.stat().st_size for file in path.parent.iterdir())
    assert here.label == "model.onnx"


def test_what_is_saved_from_external_data_stands_on_its_own(tmp_path: Path, run: Run) -> None:
    original = load_model(save_external(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    saved = save_model(apply_plan(original, plan_of(original, 8)), tmp_path / "out" / "q.onnx")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["q.onnx"]
    assert saved.files == (tmp_path / "out" / "q.onnx",)
    assert saved.size == (tmp_path / "out" / "q.onnx").stat().st_size
    feeds = conv_relu().feeds
    np.testing.assert_allclose(run(saved, feeds)["y"], run(original, feeds)["y"], atol=0.2)


def test_the_digest_covers_external_data(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    before = load_model(path).digest()
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert load_model(path).digest() != before


def test_the_content_is_that_in_memory_wherever_the_weights_are_kept(tmp_path: Path) -> None:
    inside, outside = load_model(conv_relu().proto), load_model(save_external(tmp_path))
    before = inside.serialize()
    assert inside.content() == outside.content() == inside.clone().content()
    assert inside.serialize() == before
    loaded = load_model(save_external(tmp_path))
    onnx.save(large(), tmp_path / "model.onnx")
    assert loaded.content() == inside.content()


@pytest.mark.parametrize("change", ["weight", "shape", "attribute", "name", "constant"])
def test_the_content_notices_every_change(change: str) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv"), node("Add", ["c", "k"], ["y"])]
    weight, number = random(3, 3, 3, 3), np.ones(1, np.float32)
    changed = {
        "weight": {"w": np.nextafter(weight, np.float32(9)), "k": number},
        "shape": {"w": weight, "k": number.reshape(1, 1)},
        "constant": {"w": weight, "k": 2 * number},
    }
    before = load_model(model(nodes, {"x": (1, 3, 6, 6)}, ["y"], {"w": weight, "k": number}))
    if change == "attribute":
        nodes[0] = node("Conv", ["x", "w"], ["c"], pads=[0, 2, 0, 2], name="conv")
    if change == "name":
        nodes[0].name = "other"
    after = load_model(model(nodes, {"x": (1, 3, 6, 6)}, ["y"], changed.get(change, {"w": weight, "k": number})))
    assert after.content() != before.content()


@pytest.mark.parametrize("external", [False, True], ids=["in one file", "with external data"])
def test_past_the_limit_of_one_file_weights_go_beside_it(
    external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    import ptq_lab.graph.model as room

    monkeypatch.setattr(room, "_SINGLE_FILE_LIMIT", 50)
    original = load_model(save_external(tmp_path / "in", big=True) if external else large())
    feeds = {"x": random(2, 70, seed=1)}
    quantized = apply_plan(original, plan_of(original, 5))
    (tmp_path / "out").mkdir()
    saved = save_model(quantized, tmp_path / "out" / "q.onnx")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["q.onnx", "q.onnx.data"]
    assert saved.size == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    read = load_model(tmp_path / "out" / "q.onnx")
    assert read.files == saved.files
    wanted = run(quantized.serialize(), feeds)["y"]
    assert np.array_equal(run(saved, feeds)["y"], wanted)
    assert np.array_equal(run(read, feeds)["y"], wanted)
    quantized.serialize()  # still whole: saving did not take its weights away


def test_saving_where_nothing_can_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written") as caught:
        save_model(load_model(matmul().proto), tmp_path / "missing" / "q.onnx")
    assert "\n" not in str(caught.value)


def test_bytes_do_not_depend_on_the_object_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(conv_relu().proto, path)
    assert load_model(path).serialize() == load_model(conv_relu().proto).serialize()
    assert load_model(path).clone().serialize() == load_model(path).serialize()
