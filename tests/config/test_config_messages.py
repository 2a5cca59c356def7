"""What a user reads: the golden messages of `check_config`, one case per mistake."""

import pytest

from ptq_lab.config import check_config, load_config
from ptq_lab.errors import ConfigError

WEIGHT = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n"
FULL = "[common_quant_param]\nquant_type=FULL_QUANT\n"
SAMPLES = "[data_preprocess_param]\ncalibrate_path=x:d\ncalibrate_size=9\ninput_type=IMAGE\n"
IMAGES = FULL + SAMPLES + "normalize_mean=[1,1,1]\nnormalize_std=[1,1,1]\n"
NOTHING = (
    "note [common_quant_param] quant_type: is not given, so nothing is quantized; "
    "one of WEIGHT_QUANT, FULL_QUANT, DYNAMIC_QUANT"
)

# name -> (text, ["level message", ...]), all of them, in order
MESSAGES = {
    "clean": (WEIGHT + "bit_num=+8\n", []),
    "wrong case of a word": (
        "[common_quant_param]\nquant_type=weight_quant\n",
        [
            "error line 2: [common_quant_param] quant_type: 'weight_quant' is not one of "
            "WEIGHT_QUANT, FULL_QUANT, DYNAMIC_QUANT; did you mean WEIGHT_QUANT?"
        ],
    ),
    "misspelt key": (
        WEIGHT + "bit_nums=8\n",
        ["error line 3: [common_quant_param] bit_nums: unknown option; did you mean bit_num?"],
    ),
    "out of range": (WEIGHT + "bit_num=32\n", ["error line 3: [common_quant_param] bit_num: 32 is outside 0..16"]),
    "a decimal where a whole number belongs": (
        WEIGHT + "bit_num=8.0\n",
        ["error line 3: [common_quant_param] bit_num: '8.0' is not a whole number; allowed: 0..16"],
    ),
    "a key of another section": (
        WEIGHT + "calibrate_size=9\n",
        [
            "error line 3: [common_quant_param] calibrate_size: unknown option here; "
            "it belongs into [data_preprocess_param]"
        ],
    ),
    "a key like no other": (
        WEIGHT + "[dynamic_quant_param]\nzzz=1\n",
        ["error line 4: [dynamic_quant_param] zzz: unknown option; known here: quant_strategy"],
    ),
    "no key": (WEIGHT + "=8\n", ["error line 3: [common_quant_param] there is no key before '='"]),
    "misspelt section": (
        WEIGHT + "[full_quant_parm]\nzzz=1\n",
        ["warning line 3: [full_quant_parm] unknown section, not used; did you mean full_quant_param?"],
    ),
    "misspelt section of ours": (
        WEIGHT + "[ptq_lab.mixedbit]\naverage_bits=3\n",
        ["error line 3: [ptq_lab.mixedbit] unknown section; did you mean ptq_lab.mixed_bit?"],
    ),
    "misspelt key of ours": (
        WEIGHT + "[ptq_lab]\nefort=fast\n",
        ["error line 4: [ptq_lab] efort: unknown option; did you mean effort?"],
    ),
    "section of another tool": (
        WEIGHT + "[acl_build_options]\nanything=goes\n",
        ["note line 3: [acl_build_options] belongs to another tool and is not used here"],
    ),
    "unknown key in a strict section of another tool": (
        WEIGHT + "[cpu_option_cfg_param]\narchitectur=x\n",
        [
            "note line 3: [cpu_option_cfg_param] belongs to another tool and is not used here",
            "error line 4: [cpu_option_cfg_param] architectur: unknown option; did you mean architecture?",
        ],
    ),
    "several models": (
        WEIGHT + "[model_param]\nfmk=ONNX\n[model_param]\nfmk=ONNX\n",
        [
            "note line 3: [model_param] belongs to another tool and is not used here",
            "note line 3: [model_param] the original ignores every quantization section when this one is present",
        ],
    ),
    "plug-ins": (
        WEIGHT + "[registry]\nplugin_path=/p\n",
        [
            "note line 3: [registry] belongs to another tool and is not used here",
            "warning line 3: [registry] the original refuses plug-ins together with quantization; "
            "here they are not loaded",
        ],
    ),
    "written twice": (
        WEIGHT + "bit_num=99\nbit_num=8\n",
        ["warning line 4: [common_quant_param] bit_num: is written again; this value wins over line 3"],
    ),
    "a comment behind a path": (
        WEIGHT + "debug_info_save_path=/a # b\n",
        [
            "warning line 3: [common_quant_param] debug_info_save_path: '# b' is part of the value; "
            "a comment on a path needs a line of its own"
        ],
    ),
    "nothing to do": ("[common_quant_param]\nbit_num=8\n", [NOTHING]),
    "an impossible width while nothing is quantized": (
        "[common_quant_param]\nbit_num=99\n",
        ["warning line 2: [common_quant_param] bit_num: 99 is outside 0..16", NOTHING],
    ),
    "no flag": (
        WEIGHT + "enable_encode=yes\n",
        ["error line 3: [common_quant_param] enable_encode: 'yes' is neither true nor false; did you mean true?"],
    ),
    "raw codes of an odd width": (
        WEIGHT + "bit_num=4\nenable_encode=false\n",
        [
            "error line 4: [common_quant_param] enable_encode: false needs bit_num 8 or 16, not 4; "
            "write enable_encode=true, or choose another bit_num"
        ],
    ),
    "full quantization with 4 bits": (
        FULL + "bit_num=4\n" + SAMPLES + "normalize_mean=[1,1,1]\nnormalize_std=[1,1,1]\n",
        ["error line 3: [common_quant_param] bit_num: FULL_QUANT needs 8 bits, not 4"],
    ),
    "dynamic quantization with 16 bits": (
        "[common_quant_param]\nquant_type=DYNAMIC_QUANT\nbit_num=16\n",
        ["error line 3: [common_quant_param] bit_num: DYNAMIC_QUANT needs 8 bits, not 16"],
    ),
    "full quantization without samples": (
        FULL,
        [],
    ),
    "a folder without its input": (
        FULL + "[data_preprocess_param]\ncalibrate_path=/mnt/images\n",
        ["error line 4: [data_preprocess_param] calibrate_path: '/mnt/images' names no input; write input_name:folder"],
    ),
    "folders without size and type": (
        FULL + "[data_preprocess_param]\ncalibrate_path=x:d,x:e\n",
        [
            "error line 4: [data_preprocess_param] calibrate_path: is given without calibrate_size, "
            "which says how many samples to read; write calibrate_size=100",
            "error line 4: [data_preprocess_param] calibrate_path: is given without input_type, "
            "which says what the files are; write input_type=IMAGE or input_type=BIN",
            "error line 4: [data_preprocess_param] calibrate_path: input x is named twice",
        ],
    ),
    "mean without deviation": (
        FULL + SAMPLES + "normalize_mean=[1,1,1]\n",
        [
            "error line 7: [data_preprocess_param] normalize_mean: is given without normalize_std; "
            "write normalize_std too"
        ],
    ),
    "three means for grey images": (
        IMAGES + "image_to_format=GRAY\n",
        [
            "error line 7: [data_preprocess_param] normalize_mean: 3 values, but GRAY has 1 channel",
            "error line 8: [data_preprocess_param] normalize_std: 3 values, but GRAY has 1 channel",
        ],
    ),
    "deviation of zero": (
        FULL + SAMPLES + "normalize_mean=[1,1,1]\nnormalize_std=[1,0.0,1]\n",
        ["error line 8: [data_preprocess_param] normalize_std: holds 0, and pixels cannot be divided by it"],
    ),
    "the same mistakes where no samples are needed": (
        WEIGHT + SAMPLES + "normalize_std=[0]\nresize_method=LINEAR\n",
        [
            "warning line 7: [data_preprocess_param] normalize_std: is given without normalize_mean; "
            "write normalize_mean too",
            "warning line 7: [data_preprocess_param] normalize_std: 1 values, "
            "but BGR (image_to_format is unset) has 3 channels",
            "warning line 7: [data_preprocess_param] normalize_std: holds 0, and pixels cannot be divided by it",
            "warning line 8: [data_preprocess_param] resize_method: needs resize_width and resize_height as well",
        ],
    ),
    "images that are not normalised": (
        FULL + SAMPLES,
        [
            "warning line 6: [data_preprocess_param] input_type: images are not normalised: the model gets "
            "values 0..255; if that is meant, write normalize_mean=[0, 0, 0] and normalize_std=[1, 1, 1]"
        ],
    ),
    "resize without method": (
        IMAGES + "resize_height=224\n",
        [
            "warning line 9: [data_preprocess_param] resize_height: nothing is resized, "
            "because resize_method is unset; write resize_method=LINEAR"
        ],
    ),
    "resize with one size": (
        IMAGES + "resize_method=CUBIC\nresize_width=9\n",
        ["error line 9: [data_preprocess_param] resize_method: needs resize_height as well"],
    ),
    "half a crop": (
        IMAGES + "center_crop_width=9\n",
        [
            "warning line 9: [data_preprocess_param] center_crop_width: nothing is cropped, "
            "because center_crop_height is unset; write center_crop_height"
        ],
    ),
    "a crop larger than the image": (
        IMAGES + "resize_method=LINEAR\nresize_width=9\nresize_height=9\ncenter_crop_width=9\ncenter_crop_height=10\n",
        [
            "error line 13: [data_preprocess_param] center_crop_height: "
            "10 does not fit into images resized to a height of 9"
        ],
    ),
    "image keys for raw bytes": (
        FULL + "[data_preprocess_param]\ncalibrate_path=x:d\ncalibrate_size=9\ninput_type=BIN\n"
        "normalize_mean=[1]\nresize_width=9\n",
        [
            "note line 7: [data_preprocess_param] normalize_mean: input_type is BIN, "
            "so these are not used: normalize_mean, resize_width"
        ],
    ),
    "bias correction forced off": (
        IMAGES + "[full_quant_param]\ntarget_device=KIRIN\nbias_correction=true\n",
        [
            "warning line 11: [full_quant_param] bias_correction: KIRIN does without bias correction, "
            "so it is switched off; write bias_correction=false"
        ],
    ),
    "bias correction forced off without being asked for": (
        IMAGES + "[full_quant_param]\ntarget_device=KIRIN\n",
        [
            "note line 10: [full_quant_param] target_device: KIRIN does without bias correction, "
            "so it is switched off; write bias_correction=false"
        ],
    ),
    "ascend": (
        IMAGES + "[full_quant_param]\ntarget_device=ASCEND\n",
        [
            "note line 10: [full_quant_param] target_device: ASCEND needs the flag --optimize=ascend_oriented "
            "beside this configuration"
        ],
    ),
    "spelling variants of the document": (
        IMAGES + "resize_method=NEARST\nresize_width=9\nresize_height=9\n"
        "[full_quant_param]\nactivation_quant_method=RemovalOutlier\n",
        [
            "note line 9: [data_preprocess_param] resize_method: NEARST is read as NEAREST",
            "note line 13: [full_quant_param] activation_quant_method: RemovalOutlier is read as REMOVAL_OUTLIER",
        ],
    ),
    "smoothing that does nothing": (
        IMAGES + "[full_quant_param]\nsmooth_alpha=1\n",
        ["note line 10: [full_quant_param] smooth_alpha: 1 is not between 0 and 1, so nothing is rescaled"],
    ),
    "ends of the open interval": (
        WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\ninit_scale=1\n",
        ["error line 5: [mixed_bit_weight_quant_param] init_scale: 1 is outside 0..1 (both excluded)"],
    ),
    "not a number": (
        WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\ninit_scale=nan\n",
        ["error line 5: [mixed_bit_weight_quant_param] init_scale: 'nan' is not a finite number"],
    ),
    "too few iterations": (
        WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\nauto_tune=true\nmax_iterations=39\n",
        ["error line 6: [mixed_bit_weight_quant_param] max_iterations: 39 is outside 40..65535"],
    ),
    "a scale that auto_tune replaces": (
        WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\nauto_tune=true\ninit_scale=0.1\n",
        ["note line 6: [mixed_bit_weight_quant_param] init_scale: not used, because auto_tune searches for it"],
    ),
    "what a budget replaces": (
        WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\ninit_scale=0.1\nauto_tune=true\nmax_iterations=50\n"
        "[ptq_lab.mixed_bit]\nmin_cosine=0.9\ntime_limit_s=9\n",
        [
            f"{level} line {line}: [mixed_bit_weight_quant_param] {key}: "
            "not used, because [ptq_lab.mixed_bit] min_cosine decides"
            for level, line, key in (
                ("note", 5, "init_scale"),
                ("warning", 6, "auto_tune"),
                ("note", 7, "max_iterations"),
            )
        ],
    ),
    "a time limit without a search": (
        WEIGHT + "bit_num=0\n[ptq_lab.mixed_bit]\ntime_limit_s=9\n",
        [
            "note line 5: [ptq_lab.mixed_bit] time_limit_s: not used, because init_scale is met without a search; "
            "write auto_tune=true, or one of target_size_mb, average_bits, compression_ratio, min_cosine, "
            "max_metric_drop"
        ],
    ),
    "no widths to choose from": (
        WEIGHT + "bit_num=0\n[ptq_lab.mixed_bit]\nbits=[]\n",
        ["error line 5: [ptq_lab.mixed_bit] bits: the list is empty; allowed: numbers in 1..16 separated by commas"],
    ),
    "iterations without auto_tune": (
        WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\nmax_iterations=40\n",
        ["note line 5: [mixed_bit_weight_quant_param] max_iterations: not used, because auto_tune is false"],
    ),
    "sections of another quantization": (
        WEIGHT + "[full_quant_param]\nper_channel=false\n[mixed_bit_weight_quant_param]\ninit_scale=0.1\n",
        [
            "note line 3: [full_quant_param] not used, because quant_type is WEIGHT_QUANT",
            "note line 5: [mixed_bit_weight_quant_param] not used, because bit_num is 8",
        ],
    ),
    "options of another quantization": (
        "[common_quant_param]\nquant_type=DYNAMIC_QUANT\nmin_quant_weight_size=5\nenable_encode=false\n",
        [
            "note line 3: [common_quant_param] min_quant_weight_size: not used, because quant_type is DYNAMIC_QUANT",
            "note line 4: [common_quant_param] enable_encode: not used, because quant_type is DYNAMIC_QUANT",
        ],
    ),
    "accepted without effect": (
        WEIGHT + "[weight_quant_param]\nupdate_mindir=false\nmax_segments=2\n",
        [
            "note line 4: [weight_quant_param] update_mindir: accepted without effect: there is no MindIR graph",
            "note line 5: [weight_quant_param] max_segments: accepted without effect: "
            "weights are decoded by the runtime's own threads",
        ],
    ),
    "a budget for fixed bits": (
        WEIGHT + "[ptq_lab.mixed_bit]\naverage_bits=3\n",
        ["warning line 3: [ptq_lab.mixed_bit] not used, because bit_num is 8; write bit_num=0 for mixed bits"],
    ),
    "a budget that no choice of bits meets": (
        WEIGHT + "bit_num=0\n[ptq_lab.mixed_bit]\naverage_bits=3\nbits=4,8\n",
        [
            "error line 5: [ptq_lab.mixed_bit] average_bits: 3 cannot be reached with 4 bits or more; "
            "add a smaller number to bits"
        ],
    ),
    "budgets out of range": (
        WEIGHT + "bit_num=0\n[ptq_lab.mixed_bit]\ntarget_size_mb=0\ncompression_ratio=1\nmin_cosine=1.1\n"
        "max_metric_drop=-1\ntime_limit_s=0\nbits=0,2\n",
        [
            "error line 5: [ptq_lab.mixed_bit] target_size_mb: 0 is not greater than 0",
            "error line 6: [ptq_lab.mixed_bit] compression_ratio: 1 is not greater than 1",
            "error line 7: [ptq_lab.mixed_bit] min_cosine: 1.1 is outside 0..1 (0 excluded)",
            "error line 8: [ptq_lab.mixed_bit] max_metric_drop: -1 is not at least 0",
            "error line 9: [ptq_lab.mixed_bit] time_limit_s: 0 is not greater than 0",
            "error line 10: [ptq_lab.mixed_bit] bits: 0 is outside 1..16",
        ],
    ),
    "an expression that does not compile": (
        WEIGHT + "skip_quant_node=re:(\n",
        [
            "error line 3: [common_quant_param] skip_quant_node: 're:(' is not a regular expression: "
            "missing ), unterminated subpattern at position 0"
        ],
    ),
    "ascend shapes": (
        WEIGHT + "[ascend_context]\ninput_shape=x:[-1,2,3,4];y:[-1,2]\ndynamic_dims=[0]\nwhatever=1\n",
        [
            "error line 4: [ascend_context] input_shape: '[-1,2]': of four axes, either the first or two others "
            "may be -1; allowed: -1 for the batch alone, or for two of the other axes",
            "error line 5: [ascend_context] dynamic_dims: '0' is not a size; write a number from 1 up, or e.g. 1~4",
            "note line 6: [ascend_context] whatever: unknown option, not used",
        ],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_mistake_is_told_in_these_words(name: str) -> None:
    text, expected = MESSAGES[name]
    assert [f"{problem.level} {problem}" for problem in check_config(text)] == expected


# name -> (text, column, end_column, suggestion): the one replacement an editor can offer
REPLACEMENTS = {
    "key": (WEIGHT + " bit_nums = 8", 2, 10, "bit_num"),
    "word": ("[common_quant_param]\nquant_type = full_quant # c", 14, 24, "FULL_QUANT"),
    "section": (WEIGHT + "[full_quant]", 2, 12, "full_quant_param"),
    "flag": (WEIGHT + "enable_encode=off", 15, 18, "false"),
    "alias": (WEIGHT + "[data_preprocess_param]\nresize_method=NEARST", 15, 21, "NEAREST"),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_replacement_comes_with_the_exact_place_it_belongs_to(name: str) -> None:
    text, column, end_column, suggestion = REPLACEMENTS[name]
    found = [
        (problem.column, problem.end_column, problem.suggestion) for problem in check_config(text) if problem.suggestion
    ]
    assert found == [(column, end_column, suggestion)]


def test_a_long_wrong_value_is_cut_in_its_message() -> None:
    problems = check_config(WEIGHT + f"bit_num={'9' * 5000}")
    assert len(problems) == 1
    assert len(str(problems[0])) < 200


def test_an_error_names_its_file_on_every_line() -> None:
    error = ConfigError(check_config("[common_quant_param]\nbit_nums=1\nbit_num=99.\n"), source="a.cfg")
    assert all(line.startswith("a.cfg: ") for line in str(error).splitlines())


def test_a_flat_dictionary_is_told_where_its_keys_belong() -> None:
    with pytest.raises(ConfigError, match=r"it belongs into a section: \{\"common_quant_param\": \{\"bit_num\": 8\}\}"):
        load_config({"bit_num": 8})  # type: ignore[dict-item]
