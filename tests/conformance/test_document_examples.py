"""The examples, defaults and ranges of the document, and what the original's parser accepts besides."""

from pathlib import Path

import pytest

from ptq_lab.config import check_config, load_config
from ptq_lab.config.options import GROUPS

CASES = Path(__file__).parent / "cases"
ACCEPTED = Path(__file__).parent / "accepted"

DEBUG = {"debug_info_save_path": "/home/workspace/mindspore/debug_info_save_path"}
FIXED = {
    "quant_type": "WEIGHT_QUANT",
    "bit_num": 8,
    "min_quant_weight_size": 0,
    "min_quant_weight_channel": 16,
}
IMAGES = {
    "calibrate_path": (("input_name_1", "/mnt/image/input_1_dir"), ("input_name_2", "input_2_dir")),
    "calibrate_size": 100,
    "input_type": "IMAGE",
    "image_to_format": "RGB",
    "normalize_mean": (127.5, 127.5, 127.5),
    "normalize_std": (127.5, 127.5, 127.5),
    "resize_width": 224,
    "resize_height": 224,
    "resize_method": "LINEAR",
    "center_crop_width": 224,
    "center_crop_height": 224,
}
FULL = {"activation_quant_method": "MAX_MIN", "bias_correction": True}

# file -> {section: {key: value}}: everything the file says
EXAMPLES = {
    "common": {
        "common_quant_param": FIXED
        | DEBUG
        | {"skip_quant_node": ("node_name1", "node_name2", "node_name3"), "enable_encode": True}
    },
    "mixed_bit_section": {"mixed_bit_weight_quant_param": {"init_scale": 0.02, "auto_tune": False}},
    "preprocess_section": {"data_preprocess_param": IMAGES},
    "dynamic_section": {"dynamic_quant_param": {"quant_strategy": "ACWL"}},
    "mixed_bit_weight_quant": {
        "common_quant_param": {
            "quant_type": "WEIGHT_QUANT",
            "bit_num": 0,
            "min_quant_weight_size": 5000,
            "min_quant_weight_channel": 5,
        },
        "mixed_bit_weight_quant_param": {"init_scale": 0.02},
    },
    "fixed_bit_weight_quant": {"common_quant_param": FIXED},
    "full_per_channel": {"full_quant_param": FULL | {"per_channel": True}},
    "full_per_layer": {"full_quant_param": FULL | {"per_channel": False}},
    "full_quant": {
        "common_quant_param": {"quant_type": "FULL_QUANT", "bit_num": 8},
        "data_preprocess_param": IMAGES,
        "full_quant_param": FULL,
    },
    "full_nvgpu": {"full_quant_param": FULL | {"per_channel": True, "target_device": "NVGPU"}},
    "full_dsp": {
        "full_quant_param": {
            "activation_quant_method": "MAX_MIN",
            "bias_correction": False,
            "target_device": "DSP",
        }
    },
    "full_ascend_static": {"full_quant_param": FULL | {"target_device": "ASCEND"}},
    "full_ascend_dynamic": {
        "full_quant_param": FULL | {"target_device": "ASCEND"},
        "ascend_context": {"input_shape": "input_1:[-1,32,32,4]", "dynamic_dims": "[1~4],[8],[16]"},
    },
    "dynamic_quant": {
        "common_quant_param": {"quant_type": "DYNAMIC_QUANT", "bit_num": 8},
        "dynamic_quant_param": {"quant_strategy": "ACWL"},
    },
    "debug_reports": {"common_quant_param": DEBUG},
    "skip_nodes": {
        "common_quant_param": {
            "quant_type": "FULL_QUANT",
            "bit_num": 8,
            "skip_quant_node": ("conv2d_1", "add_8", "concat_1"),
        }
    },
}

# (section, key) -> default of the document's tables; None where there is none
DEFAULTS = {
    ("common_quant_param", "quant_type"): None,
    ("common_quant_param", "bit_num"): 8,
    ("common_quant_param", "min_quant_weight_size"): 0,
    ("common_quant_param", "min_quant_weight_channel"): 16,
    ("common_quant_param", "skip_quant_node"): (),
    ("common_quant_param", "debug_info_save_path"): None,
    ("common_quant_param", "enable_encode"): True,
    ("mixed_bit_weight_quant_param", "init_scale"): 0.02,
    ("mixed_bit_weight_quant_param", "auto_tune"): False,
    ("full_quant_param", "activation_quant_method"): "MAX_MIN",
    ("full_quant_param", "bias_correction"): True,
    ("full_quant_param", "per_channel"): True,
    ("full_quant_param", "target_device"): "CPU",
    ("data_preprocess_param", "calibrate_path"): (),
    ("data_preprocess_param", "calibrate_size"): None,
    ("data_preprocess_param", "input_type"): None,
    ("data_preprocess_param", "image_to_format"): None,
    ("data_preprocess_param", "normalize_mean"): (),
    ("data_preprocess_param", "normalize_std"): (),
    ("data_preprocess_param", "resize_width"): None,
    ("data_preprocess_param", "resize_height"): None,
    ("data_preprocess_param", "resize_method"): None,
    ("data_preprocess_param", "center_crop_width"): None,
    ("data_preprocess_param", "center_crop_height"): None,
    ("dynamic_quant_param", "quant_strategy"): "ALWC",
}

COUNT = (["1", "65535"], ["0", "65536", "-1", "1.0", "x"])
FLAG = (["True", "False", "true", "FALSE"], ["1", "yes", "on", "none"])
# (section, key) -> (texts the document allows, texts it does not)
RANGES = {
    ("common_quant_param", "quant_type"): (
        ["WEIGHT_QUANT", "FULL_QUANT", "DYNAMIC_QUANT"],
        ["WeightQuant", "weight_quant", "INT8"],
    ),
    ("common_quant_param", "bit_num"): (["0", "1", "15", "16"], ["-1", "17", "0x8", "8 bits"]),
    ("common_quant_param", "min_quant_weight_size"): (["0", "65535"], ["-1", "65536"]),
    ("common_quant_param", "min_quant_weight_channel"): (["0", "65535"], ["-1", "65536"]),
    ("common_quant_param", "enable_encode"): FLAG,
    ("mixed_bit_weight_quant_param", "init_scale"): (
        ["0.0001", "0.9999", "1e-3"],
        ["0", "1", "-0.1", "1.5", "inf", "nan"],
    ),
    ("mixed_bit_weight_quant_param", "auto_tune"): FLAG,
    ("full_quant_param", "activation_quant_method"): (
        ["KL", "MAX_MIN", "RemovalOutlier", "REMOVAL_OUTLIER"],
        ["kl", "MIN_MAX", "removal_outlier"],
    ),
    ("full_quant_param", "bias_correction"): FLAG,
    ("full_quant_param", "per_channel"): FLAG,
    ("full_quant_param", "target_device"): (["NVGPU", "DSP", "ASCEND", "KIRIN", "CPU"], ["GPU", "cpu"]),
    ("data_preprocess_param", "calibrate_size"): COUNT,
    ("data_preprocess_param", "input_type"): (["IMAGE", "BIN"], ["image", "NPY"]),
    ("data_preprocess_param", "image_to_format"): (["RGB", "GRAY", "BGR"], ["RGBA", "gray"]),
    ("data_preprocess_param", "resize_width"): COUNT,
    ("data_preprocess_param", "resize_height"): COUNT,
    ("data_preprocess_param", "resize_method"): (["LINEAR", "NEAREST", "NEARST", "CUBIC"], ["linear", "AREA"]),
    ("data_preprocess_param", "center_crop_width"): COUNT,
    ("data_preprocess_param", "center_crop_height"): COUNT,
    ("data_preprocess_param", "normalize_mean"): (["[1]", "[1, 2.5, 3]"], ["1", "[]", "[1,,2]", "[a]", "(1)"]),
    ("dynamic_quant_param", "quant_strategy"): (["ALWC", "ACWL"], ["ACWC", "alwc"]),
}
ALLOWED = [(*where, text) for where, (allowed, _) in RANGES.items() for text in allowed]
REFUSED = [(*where, text) for where, (_, refused) in RANGES.items() for text in refused]


def test_every_case_file_has_its_expectation() -> None:
    assert {file.stem for file in CASES.glob("*.cfg")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_document_means_exactly_what_it_says(name: str) -> None:
    config = load_config(CASES / f"{name}.cfg")
    said = {
        section: {key: getattr(config.group(section), key) for key in group.options() if (section, key) in config.given}
        for section, group in GROUPS.items()
    }
    assert {section: values for section, values in said.items() if values} == EXAMPLES[name]
    assert config.unused == ()


@pytest.mark.parametrize(("section", "key"), DEFAULTS)
def test_a_default_is_the_one_of_the_document(section: str, key: str) -> None:
    assert getattr(load_config("# nothing\n").group(section), key) == DEFAULTS[section, key]


@pytest.mark.parametrize(("section", "key", "text"), ALLOWED)
def test_a_value_the_document_allows_is_accepted(section: str, key: str, text: str) -> None:
    assert (section, key) in load_config(f"[{section}]\n{key}={text}\n").given


@pytest.mark.parametrize(("section", "key", "text"), REFUSED)
def test_a_value_the_document_does_not_allow_is_refused_at_its_place(section: str, key: str, text: str) -> None:
    start = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n" if key != "quant_type" else ""
    problems = check_config(f"{start}[{section}]\n{key}={text}\n")
    errors = [problem for problem in problems if problem.level == "error"]
    assert [(problem.section, problem.key) for problem in errors] == [(section, key)]
    assert errors[0].column == len(key) + 2
    assert errors[0].end_column == len(key) + 2 + len(text)


@pytest.mark.parametrize("file", sorted(ACCEPTED.glob("*.cfg")), ids=lambda file: file.stem)
def test_what_the_parser_of_the_original_accepts_loads_and_does_not_pass_in_silence(file: Path) -> None:
    config = load_config(file)
    assert config.problems


def test_odd_lines_end_up_as_the_original_reads_them() -> None:
    common = load_config(ACCEPTED / "odd_lines.cfg").common
    assert (common.quant_type, common.bit_num, common.enable_encode) == ("WEIGHT_QUANT", 3, True)
    assert (common.skip_quant_node, common.min_quant_weight_size) == (("a", "b", "c"), 65535)


def test_sections_of_other_tools_are_listed_as_unused_in_their_order() -> None:
    config = load_config(ACCEPTED / "other_sections.cfg")
    assert config.unused == (
        "registry",
        "acl_option_cfg_param",
        "micro_param",
        "cpu_option_cfg_param",
        "om_converter",
        "acl_build_options",
        "graph_kernel_param",
        "my_own_plugin",
    )
    assert config.common.quant_type == "WEIGHT_QUANT"


def test_an_impossible_width_keeps_the_default_while_nothing_is_quantized() -> None:
    assert load_config(ACCEPTED / "no_quantization.cfg").common.bit_num == 8
