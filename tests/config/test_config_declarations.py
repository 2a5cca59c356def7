"""Every option is declared once, completely, and everything derived from it is up to date."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from ptq_lab.config import TEMPLATES, check_config, load_config, schema, template
from ptq_lab.config.foreign import FOREIGN
from ptq_lab.config.option import DOCUMENT, ORIGINAL, OURS
from ptq_lab.config.options import GROUPS
from ptq_lab.config.reference import derived_files

KEYS = {
    "common_quant_param": "quant_type bit_num min_quant_weight_size min_quant_weight_channel skip_quant_node "
    "debug_info_save_path enable_encode workspace",
    "weight_quant_param": "dequant_strategy update_mindir max_segments per_channel bias_correction quant_strategy",
    "mixed_bit_weight_quant_param": "init_scale auto_tune use_cv_data max_iterations",
    "full_quant_param": "activation_quant_method bias_correction target_device per_channel smooth_alpha "
    "enable_smooth_shift",
    "data_preprocess_param": "calibrate_path calibrate_size input_type image_to_format normalize_mean "
    "normalize_std resize_width resize_height resize_method center_crop_width center_crop_height",
    "dynamic_quant_param": "quant_strategy",
    "transform_quant_param": "export_precision_mode",
    "ascend_context": "input_shape dynamic_dims input_format precision_mode op_select_impl_mode "
    "fusion_switch_config_file_path buffer_optimize insert_op_config_file_path om_file_path aoe_mode "
    "dump_model_name provider plugin_custom_ops enable_custom_op custom_fusion_pattern op_attrs device_id "
    "output_type inputs_to_variable outputs_to_variable",
    "ptq_lab": "effort encode providers activation_quant_method preprocess_order antialias mindspore_csv "
    "debug_quantiles equalize bias_correction_mode quantize_ops weight_bits dynamic_strategy performance",
    "ptq_lab.weights": "search_ranges correct_biases fit_activations gptq descend refit_scales blend offsets positions "
    "block_size run_time_arithmetic",
    "ptq_lab.mixed_bit": "target_size_mb average_bits compression_ratio min_cosine max_metric_drop time_limit_s bits",
}
STRICT = {"registry", "micro_param", "acl_option_cfg_param", "cpu_option_cfg_param", "om_converter", "model_param"}
FREE = {"acl_init_options", "acl_build_options", "aoe_global_options", "aoe_tuning_options", "graph_kernel_param"}
ALL = [(section, key) for section, group in GROUPS.items() for key in group.options()]


def test_every_section_and_key_of_the_dialect_is_declared_and_no_other() -> None:
    assert {section: set(group.options()) for section, group in GROUPS.items()} == {
        section: set(keys.split()) for section, keys in KEYS.items()
    }


def test_sections_of_other_tools_are_known() -> None:
    assert {name for name, keys in FOREIGN.items() if keys is not None} == STRICT
    assert {name for name, keys in FOREIGN.items() if keys is None} == FREE


@pytest.mark.parametrize(("section", "key"), ALL)
def test_an_option_says_what_and_when_in_sentences_and_can_show_a_value(section: str, key: str) -> None:
    group = GROUPS[section]
    declared, default = group.options()[key], group.default(key)
    assert declared.what.endswith(".")
    assert declared.when.endswith(".")
    assert declared.source in {DOCUMENT, ORIGINAL, OURS}
    text = declared.example if default in (None, ()) else declared.kind.write(default)
    value = declared.kind.read(text)
    assert declared.kind.accept(value) == value
    assert declared.kind.read(declared.kind.write(value)) == value
    if default not in (None, ()):
        assert value == default


def test_the_template_for_full_quantization_marks_what_the_user_must_edit() -> None:
    lines = template("full").splitlines()
    marked = [after.partition("=")[0] for line, after in pairwise(lines) if "# EDIT: " in line]
    assert marked == [
        "calibrate_path",
        "calibrate_size",
        "normalize_mean",
        "normalize_std",
        "resize_width",
        "resize_height",
    ]
    assert "EDIT" in lines[0]
    for kind in ("weight", "mixed", "dynamic"):
        assert "EDIT" not in template(kind)


def test_the_schema_is_a_schema_made_of_json_alone() -> None:
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    assert json.loads(json.dumps(described)) == described


def test_every_default_is_valid_under_the_schema() -> None:
    properties = schema()["properties"]
    defaults = {
        section: {
            key: described["default"]
            for key, described in properties[section]["properties"].items()
            if "default" in described
        }
        for section in GROUPS
    }
    assert defaults["common_quant_param"]["bit_num"] == 8
    assert defaults["ptq_lab.mixed_bit"]["bits"] == [2, 3, 4, 5, 6, 7, 8]
    jsonschema.validate(defaults, schema())


@pytest.mark.parametrize(
    "config",
    [
        {"common_quant_param": {"bit_num": 17}},
        {"common_quant_param": {"bits": 8}},
        {"common_quant_param": {"quant_type": "WEIGHT"}},
        {"mixed_bit_weight_quant_param": {"init_scale": 1}},
        {"registry": {"plugin": "x"}},
        {"ptq_lab.mixedbit": {}},
        {"ptq_lab.layer_bit": {}},
        {"ptq_lab.layer_bits": {"conv1": 0}},
        {"ptq_lab.layer_bits": {"conv1": 17}},
        {"ptq_lab.layer_bits": {"conv1": True}},
        {"ptq_lab.layer_bits": {'a"b': 4}},
        {"ptq_lab.layer_bits": {"a\nb": 4}},
        {"ptq_lab.layer_bits": {"": 4}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(config: dict[str, dict[str, object]]) -> None:
    assert not jsonschema.Draft202012Validator(schema()).is_valid(config)
    quantized = {"common_quant_param": {"quant_type": "WEIGHT_QUANT"} | config.pop("common_quant_param", {})} | config
    assert any(problem.level == "error" for problem in check_config(quantized))


def test_each_option_of_the_schema_carries_what_editors_show() -> None:
    wanted = {"title", "description", "x-when", "x-ignored-when", "x-source", "x-aliases"}
    for section, key in ALL:
        assert wanted <= schema()["properties"][section]["properties"][key].keys()
    methods = schema()["properties"]["full_quant_param"]["properties"]["activation_quant_method"]
    assert methods["x-aliases"] == {"RemovalOutlier": "REMOVAL_OUTLIER"}


@pytest.mark.parametrize("path", derived_files(), ids=lambda path: path.name)
def test_derived_files_are_up_to_date(path: Path) -> None:
    expected = derived_files()[path]
    assert path.read_text(encoding="utf-8") == expected, "run: python -m ptq_lab.config.reference"


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_loads_without_a_word_of_complaint(kind: str) -> None:
    wanted = {"weight": ("WEIGHT_QUANT", 8), "mixed": ("WEIGHT_QUANT", 0), "full": ("FULL_QUANT", 8),
              "dynamic": ("DYNAMIC_QUANT", 8)}  # fmt: skip
    config = load_config(template(kind))
    assert (config.common.quant_type, config.common.bit_num) == wanted[kind]
    assert config.problems == ()


def test_an_unknown_template_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'int4' is not one of the templates weight, mixed, full, dynamic"):
        template("int4")


def test_importing_the_room_loads_neither_numpy_nor_onnx() -> None:
    code = (
        "import sys, ptq_lab.config; "
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'IPython', 'plotly'} & set(sys.modules)))"
    )
    # The package's own door may load more than this room does, so it is held open by an empty module.
    held = "import sys, types; door = types.ModuleType('ptq_lab'); door.__path__ = [p]; sys.modules['ptq_lab'] = door; "
    path = str(next(iter(derived_files())).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", f"p = {path!r}; {held}{code}"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
