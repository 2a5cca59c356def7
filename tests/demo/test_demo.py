"""The embedded models and their data are what their pages promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from ptq_lab import demo
from ptq_lab.config import load_config
from ptq_lab.errors import ModelError, OutputError, PtqLabError

ROOM = Path(demo.__file__).parent
DOCUMENTED = {"digits_cnn": 0.993, "digits_transformer": 0.989, "photo_denoiser": 26.3}
CLASSIFIERS = ("digits_cnn", "digits_transformer")
every_demo = pytest.mark.parametrize("name", demo.NAMES)


def session_of(model: Path | bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def inputs_of(path: Path) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in arrays_of(path).items() if name not in ("labels", "target")}


def fits(actual: int, declared: int | str) -> bool:
    return isinstance(declared, str) or actual == declared


class Echo:
    """A session that answers with what it was told, in the batches it is asked for."""

    def __init__(self, answers: NDArray[np.float32]) -> None:
        self.answers, self.done = answers, 0

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> list[NDArray[np.float32]]:
        count = len(next(iter(input_feed.values())))
        self.done += count
        return [self.answers[self.done - count : self.done]]


def test_all_files_of_the_room_together_stay_under_three_megabytes() -> None:
    files = [path for path in ROOM.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 12
    assert sum(path.stat().st_size for path in files) < 3_000_000


def test_no_file_of_the_room_holds_a_path_of_the_machine_that_made_it() -> None:
    for path in (path for path in ROOM.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        content = path.read_bytes()
        assert not [mark for mark in (b"/work", b"/tmp", b"/root", b"/home") if mark in content], path


def test_importing_the_room_reads_no_data_and_needs_no_training_package() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import ptq_lab.demo\n"
        "assert not [name for name in opened if name.endswith(('.onnx', '.npz', '.cfg'))]\n"
        "assert not {'torch', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOM.parent.parent)


@every_demo
def test_a_model_passes_the_full_check_in_float32_at_opset_17_and_ir_8(name: str) -> None:
    model = onnx.load(demo.load(name).model_path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}  # int64 only for shapes
    assert not model.doc_string
    assert not model.metadata_props
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


@every_demo
def test_every_node_has_a_name_of_its_own_that_ends_with_its_operator(name: str) -> None:
    nodes = onnx.load(demo.load(name).model_path).graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    assert all(node.name.endswith(f"/{node.op_type}") for node in nodes)


@every_demo
def test_the_float_model_scores_at_least_what_the_page_says(name: str) -> None:
    card = demo.load(name)
    assert card.evaluate(session_of(card.model_path)) >= DOCUMENTED[name]


@every_demo
def test_both_data_files_fit_the_inputs_of_the_model(name: str) -> None:
    card = demo.load(name)
    declared = {value.name: value for value in session_of(card.model_path).get_inputs()}
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    for path in (card.calib_path, card.eval_path):
        inputs = inputs_of(path)
        assert inputs.keys() == declared.keys()
        for key, array in inputs.items():
            assert array.dtype == kinds[declared[key].type]
            assert array.ndim == len(declared[key].shape)
            assert all(map(fits, array.shape, declared[key].shape))


@every_demo
def test_calibration_and_evaluation_share_no_sample(name: str) -> None:
    card = demo.load(name)
    (calibration,), (evaluation,) = (inputs_of(path).values() for path in (card.calib_path, card.eval_path))
    seen = {sample.tobytes() for sample in calibration}
    assert len(seen) >= 100
    assert not seen & {sample.tobytes() for sample in evaluation}


def test_no_calibration_patch_shows_a_place_of_an_evaluation_patch() -> None:
    card = demo.load("photo_denoiser")
    session, evaluation = session_of(card.model_path), arrays_of(card.eval_path)
    places = np.concatenate([grey_windows(target) for target in evaluation["target"]])

    def nearest(noisy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Root mean square distance of each clear 16x16 window to the nearest place, every shift tried."""
        windows = session.run(None, {"image": noisy})[0].mean(axis=1)[:, 8:24, 8:24].reshape(len(noisy), -1)
        windows = windows[windows.std(axis=1) > 0.1]  # flat sky looks like any other sky
        squares = np.square(places).sum(1)[:, None] + np.square(windows).sum(1) - 2 * places @ windows.T
        return np.asarray(np.sqrt(np.maximum(squares.min(axis=0), 0) / windows.shape[1]))

    same, strange = nearest(evaluation["image"]), nearest(inputs_of(card.calib_path)["image"])
    assert min(len(same), len(strange)) >= 4
    assert same.max() < strange.min()


def grey_windows(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every 16x16 window of a (3, H, W) picture in grey, one a row."""
    views = np.lib.stride_tricks.sliding_window_view(picture.mean(axis=0), (16, 16))
    return views.reshape(-1, 256)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_labels_are_the_ten_digits_in_fair_shares(name: str) -> None:
    labels = arrays_of(demo.load(name).eval_path)["labels"]
    assert labels.dtype == np.int64
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert counts.min() > 30


def test_both_digit_models_read_the_same_pictures_in_the_same_order() -> None:
    cnn, transformer = (arrays_of(demo.load(name).eval_path) for name in CLASSIFIERS)
    np.testing.assert_array_equal(cnn["labels"], transformer["labels"])
    levels = np.stack(np.divmod(transformer["tokens"], 17), axis=-1).reshape(-1, 8, 8)
    # Doubling with repeated edges keeps the mean, so brightness ties the two together.
    brightness = cnn["image"].mean(axis=(1, 2, 3)), levels.mean(axis=(1, 2)) / 16
    np.testing.assert_allclose(*brightness, atol=1e-5)


def test_the_photographs_are_levels_of_eight_bits_and_the_noise_is_25_levels() -> None:
    arrays = arrays_of(demo.load("photo_denoiser").eval_path)
    for name in ("image", "target"):
        assert arrays[name].min() >= 0
        assert arrays[name].max() <= 1
        np.testing.assert_allclose(np.rint(arrays[name] * 255) / 255, arrays[name], atol=1e-7)
    middle = (arrays["target"] > 0.4) & (arrays["target"] < 0.6)  # away from where clipping bites
    assert 24 < 255 * (arrays["image"] - arrays["target"])[middle].std() < 26


def test_the_denoiser_takes_pictures_of_any_size_and_beats_its_input_by_5_db() -> None:
    card = demo.load("photo_denoiser")
    session = session_of(card.model_path)
    (result,) = session.run(None, {"image": np.full((1, 3, 21, 34), 0.5, np.float32)})
    assert result.shape == (1, 3, 21, 34)
    arrays = arrays_of(card.eval_path)
    noisy = demo.picture_psnr(arrays["image"], arrays["target"]).mean()
    assert demo.psnr(session) > noisy + 5


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_top_1_counts_the_samples_whose_largest_logit_is_the_label(name: str) -> None:
    card = demo.load(name)
    labels = arrays_of(card.eval_path)["labels"]
    logits = np.eye(10, dtype=np.float32)[labels]
    assert card.evaluate(Echo(logits)) == 1.0
    logits[:7] = np.eye(10, dtype=np.float32)[(labels[:7] + 1) % 10]
    assert card.evaluate(Echo(logits)) == pytest.approx(1 - 7 / len(labels))


def test_psnr_is_the_mean_over_pictures_with_the_prediction_clipped() -> None:
    target = arrays_of(demo.load("photo_denoiser").eval_path)["target"]
    away = np.where(target < 0.5, target + 0.1, target - 0.1).astype(np.float32)
    assert demo.psnr(Echo(away)) == pytest.approx(20.0, abs=1e-3)
    white, black = np.ones((1, 4)), np.zeros((1, 4))
    assert demo.picture_psnr(white * 1.5, white)[0] == np.inf
    assert demo.picture_psnr(black, white)[0] == 0


@pytest.mark.parametrize("name", demo.NAMES)
def test_rounding_the_weights_hurts_little_at_8_bits_and_destroys_at_2(name: str) -> None:
    card = demo.load(name)
    whole = card.evaluate(session_of(card.model_path))
    eight, two = (score_rounded(card, bits) for bits in (8, 2))
    slack, drop = (0.3, 8.0) if card.metric == "psnr" else (0.01, 0.1)
    assert eight > whole - slack
    assert two < whole - drop


def score_rounded(card: demo.Demo, bits: int) -> float:
    """Score a copy whose weights of two and more axes are rounded per output channel."""
    model = onnx.load(card.model_path)
    turned = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim < 2:
            continue
        axes = (0,) if tensor.name in turned else tuple(range(1, values.ndim))
        low, high = (edge(values, axis=axes, keepdims=True) for edge in (np.min, np.max))
        step = np.maximum(high - low, 1e-12) / (2**bits - 1)
        rounded = np.rint((values - low) / step) * step + low
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded.astype(np.float32), tensor.name))
    return card.evaluate(session_of(model.SerializeToString()))


@every_demo
def test_a_card_names_existing_files_and_says_what_it_is(name: str) -> None:
    card = demo.load(name)
    assert card.name == name
    paths = (card.model_path, card.calib_path, card.eval_path, card.config_path)
    assert all(path.is_file() for path in paths)
    assert len(card.description) > 80
    assert "CC BY" in card.source


@every_demo
def test_the_configuration_loads_as_weight_quantization_without_a_remark(name: str) -> None:
    config = load_config(demo.load(name).config_path)
    assert config.common.quant_type == "WEIGHT_QUANT"
    assert 1 <= config.common.bit_num <= 8
    assert not config.problems


@every_demo
def test_the_original_can_read_the_configuration_which_knows_no_inline_comments(name: str) -> None:
    lines = demo.load(name).config_path.read_text(encoding="utf-8").splitlines()
    plain = [line for line in lines if line and not line.startswith("#")]
    assert plain[0] == "[common_quant_param]"
    assert all(line.startswith("[") or line.count("=") == 1 for line in plain)
    assert not [line for line in plain if "#" in line or " " in line]


@every_demo
def test_copying_writes_the_same_bytes_into_a_folder_of_the_demos_name(name: str, tmp_path: Path) -> None:
    folder = demo.copy(name, tmp_path / "new" / "place")
    assert folder == tmp_path / "new" / "place" / name
    assert demo.copy(name, tmp_path / "new" / "place") == folder  # replacing is no error
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["calib.npz", "eval.npz", "model.onnx", "weight.cfg"]
    assert all((folder / file).read_bytes() == (ROOM / name / file).read_bytes() for file in files)


def test_copying_where_nothing_can_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written there") as caught:
        demo.copy("digits_cnn", tmp_path / "taken")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "taken") in str(caught.value)


def test_an_unknown_name_is_refused_with_the_names_there_are_and_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean digits_transformer") as caught:
        demo.load("digits_tranformer")
    assert isinstance(caught.value, PtqLabError)
    assert isinstance(caught.value, ValueError)
    assert all(name in str(caught.value) for name in demo.NAMES)
    with pytest.raises(ModelError) as strange:
        demo.load("resnet50")
    assert "did you mean" not in str(strange.value)
