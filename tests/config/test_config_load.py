"""`load_config`: sources, overrides, and what ends up in a `QuantConfig`."""

from pathlib import Path

import pytest

from ptq_lab.config import QuantConfig, check_config, load_config, unsupported
from ptq_lab.config.sections.quantization import CommonOptions
from ptq_lab.errors import ConfigError

WEIGHT = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n"

# name -> (section, key, INI text, value)
VALUES = {
    "whole number with sign": ("common_quant_param", "bit_num", "+4", 4),
    "flag in any case": ("weight_quant_param", "per_channel", "fAlSe", False),
    "flag with full-width punctuation": ("weight_quant_param", "per_channel", "False，", False),
    "number with exponent": ("mixed_bit_weight_quant_param", "init_scale", "2e-2", 0.02),
    "hexadecimal float": ("mixed_bit_weight_quant_param", "init_scale", "0x1p-3", 0.125),
    "vector with blanks": ("data_preprocess_param", "normalize_std", "[ 1 , 2.5 ,3 ]", (1.0, 2.5, 3.0)),
    "vector with trailing comma": ("data_preprocess_param", "normalize_std", "[1,2,3,]", (1.0, 2.0, 3.0)),
    "full-width vector": ("data_preprocess_param", "normalize_std", "［1，2。5，3］", (1.0, 2.5, 3.0)),
    "names with blanks": ("common_quant_param", "skip_quant_node", " a , b，c,", ("a", "b", "c")),
    "names with patterns": (
        "common_quant_param",
        "skip_quant_node",
        'conv*, type:Add, "re:b{1,2}"',
        ("conv*", "type:Add", "re:b{1,2}"),
    ),
    "empty name between commas": ("common_quant_param", "skip_quant_node", "a,,b", ("a", "b")),
    "path in quotes": ("common_quant_param", "debug_info_save_path", '"/a b"', "/a b"),
    "folders": ("data_preprocess_param", "calibrate_path", "a:/x,b:y", (("a", "/x"), ("b", "y"))),
    "input name with colons": ("data_preprocess_param", "calibrate_path", "in:0:/x", (("in:0", "/x"),)),
    "folders with blanks and quotes": (
        "data_preprocess_param",
        "calibrate_path",
        "'a' : \"C:/x, y\" , b:'D:\\z' ,",
        (("a", "C:/x, y"), ("b", "D:\\z")),
    ),
    "apostrophe in a folder": (
        "data_preprocess_param",
        "calibrate_path",
        "a:/bob's,b:/it's",
        (("a", "/bob's"), ("b", "/it's")),
    ),
    "full-width colon": ("data_preprocess_param", "calibrate_path", "a：/x", (("a", "/x"),)),
    "the device the original cannot name": ("full_quant_param", "target_device", "CPU", "CPU"),
    "bits in brackets": ("ptq_lab.mixed_bit", "bits", "[2, 4,8]", (2, 4, 8)),
    "providers": ("ptq_lab", "providers", "A,B", ("A", "B")),
}


@pytest.mark.parametrize("name", VALUES)
def test_text_becomes_the_value_it_means(name: str) -> None:
    section, key, text, value = VALUES[name]
    config = load_config(f"[{section}]\n{key}={text}\n")
    assert getattr(config.group(section), key) == value
    assert config.given == {(section, key)}


# name -> (section, key, Python value, value)
PYTHON_VALUES = {
    "number": ("common_quant_param", "bit_num", 4, 4),
    "number as text": ("common_quant_param", "bit_num", "4", 4),
    "flag": ("weight_quant_param", "per_channel", False, False),
    "whole number as a float option": ("full_quant_param", "smooth_alpha", 1, 1.0),
    "list of names": ("common_quant_param", "skip_quant_node", ["a,b", "'c'"], ("a,b", "'c'")),
    "names as text": ("common_quant_param", "skip_quant_node", "a,b", ("a", "b")),
    "vector": ("data_preprocess_param", "normalize_mean", [1, 2.5], (1.0, 2.5)),
    "path": ("common_quant_param", "debug_info_save_path", Path("a") / "b", str(Path("a") / "b")),
    "folders as text": ("data_preprocess_param", "calibrate_path", "a:x", (("a", "x"),)),
    "folders as a mapping": ("data_preprocess_param", "calibrate_path", {"a": "x=1"}, (("a", "x=1"),)),
    "folders as a list of texts": ("data_preprocess_param", "calibrate_path", ["a:x"], (("a", "x"),)),
    "folders as pairs": ("data_preprocess_param", "calibrate_path", [("a", Path("x"))], (("a", "x"),)),
}


@pytest.mark.parametrize("name", PYTHON_VALUES)
def test_a_dictionary_may_hold_python_values_or_text(name: str) -> None:
    section, key, given, value = PYTHON_VALUES[name]
    assert getattr(load_config({section: {key: given}}).group(section), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [("bit_num", True), ("bit_num", 8.0), ("bit_num", None), ("enable_encode", 1), ("skip_quant_node", 3),
     ("skip_quant_node", ["a", ""]), ("skip_quant_node", ['a"b']), ("debug_info_save_path", "a\nb"),
     ("debug_info_save_path", ["a"]), ("quant_type", 8)],
)  # fmt: skip
def test_a_python_value_of_the_wrong_type_is_refused_with_its_option(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"common_quant_param": {key: value}})
    assert [(problem.section, problem.key) for problem in caught.value.problems] == [("common_quant_param", key)]


def test_all_errors_are_raised_together_in_the_order_of_the_text() -> None:
    text = "[common_quant_param]\nquant_type=X\nbit_nums=1\nno equals sign\nbit_num=99\n[ptq_lab]\neffort=none\n"
    with pytest.raises(ConfigError) as caught:
        load_config(text)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5, 7]
    assert all(problem.level == "error" for problem in caught.value.problems)


def test_a_rule_about_an_unreadable_option_stays_silent() -> None:
    problems = check_config("[common_quant_param]\nquant_type=FULL_QUANT\nbit_num=four\n")
    assert [problem.message for problem in problems if problem.key == "bit_num"] == ["'four' is not a whole number"]


def test_warnings_and_notes_come_with_the_configuration() -> None:
    config = load_config(WEIGHT + "[nonsense_xyz]\na=1\n[registry]\ndisable_fusion=on\n")
    assert [(problem.level, problem.line) for problem in config.problems] == [("warning", 3), ("note", 5)]
    assert config.unused == ("nonsense_xyz", "registry")


def test_a_configuration_is_returned_as_it_is() -> None:
    config = load_config(WEIGHT)
    assert load_config(config) is config


def test_a_configuration_built_by_hand_is_checked_like_any_other() -> None:
    with pytest.raises(ConfigError, match="FULL_QUANT needs 8 bits, not 4"):
        load_config(QuantConfig(common=CommonOptions(quant_type="FULL_QUANT", bit_num=4)))


def test_a_field_out_of_range_is_refused_by_the_model_itself() -> None:
    with pytest.raises(ValueError, match=r"32 is outside 0\.\.16"):
        CommonOptions(bit_num=32)


def test_a_configuration_cannot_be_changed_in_place() -> None:
    config = load_config(WEIGHT)
    with pytest.raises(ValueError, match="frozen"):
        config.common.bit_num = 4  # type: ignore[misc]


def test_equality_compares_values_and_not_how_they_were_written() -> None:
    said, unsaid = load_config(WEIGHT + "bit_num=8\n"), load_config(WEIGHT + "[registry]\ndisable_fusion=on\n")
    assert said == unsaid
    assert hash(said) == hash(unsaid)
    assert said.given != unsaid.given
    assert said != load_config(WEIGHT + "bit_num=7\n")


class TestOverrides:
    def test_an_override_wins_and_counts_as_given(self) -> None:
        config = load_config(WEIGHT + "bit_num=8\n", overrides={"common_quant_param.bit_num": "4"})
        assert config.common.bit_num == 4
        assert ("common_quant_param", "bit_num") in config.given
        assert not config.problems

    def test_an_override_replaces_a_wrong_value(self) -> None:
        assert load_config(WEIGHT + "bit_num=99\n", overrides={"common_quant_param.bit_num": "4"}).common.bit_num == 4

    def test_the_last_dot_separates_the_key(self) -> None:
        config = load_config(
            WEIGHT, overrides={"common_quant_param.bit_num": "0", "ptq_lab.mixed_bit.average_bits": "3"}
        )
        assert config.budget.average_bits == 3.0

    def test_an_override_of_a_loaded_configuration_runs_the_rules_again(self) -> None:
        before = load_config(
            "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=0\n[ptq_lab.mixed_bit]\nbits=2,4\n"
        )
        after = load_config(before, overrides={"common_quant_param.bit_num": "8"})
        assert [str(problem) for problem in after.problems] == [
            "line 4: [ptq_lab.mixed_bit] not used, because bit_num is 8; write bit_num=0 for mixed bits"
        ]
        assert load_config(after, overrides={"common_quant_param.bit_num": "0"}).problems == ()

    def test_an_override_keeps_other_problems_and_sections_of_other_tools(self) -> None:
        before = load_config(WEIGHT + "bit_num=7\nbit_num=8\n[registry]\ndisable_fusion=on\n")
        after = load_config(before, overrides={"common_quant_param.skip_quant_node": "a"})
        assert (after.problems, after.foreign) == (before.problems, before.foreign)

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ({"common_quant_param.bit_num": "99"}, "is outside 0..16, in the override common_quant_param.bit_num=99"),
            ({"common_quant_param.bit": "9"}, "in the override common_quant_param.bit=9; did you mean bit_num?"),
            ({"common_quant.bit_num": "9"}, "in the override common_quant.bit_num=9; did you mean common_quant_param?"),
            ({"bit_num": "9"}, "the override bit_num=9 names no option; write section.key"),
        ],
    )  # fmt: skip
    def test_a_wrong_override_is_named(self, override: dict[str, str], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_config(WEIGHT, overrides=override)
        assert message in str(caught.value)


# name -> (content of the file, message)
BAD_FILES = {
    "empty": (b"", "the configuration is empty"),
    "blank": (b" \n\t\n", "the configuration is empty"),
    "binary": (b"\x08\x07\x00\x01", "is a binary file: byte 2 is NUL"),
    "latin 1": (b"[a]\nb=1\nc=caf\xe9\n", "line 3: is not UTF-8: byte 13 is 0xe9; save it as UTF-8"),
    "utf-16": ("[a]".encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
    "huge": (b"# \n" * 400_000, "too large for a configuration"),
}


class TestFiles:
    def test_a_path_may_be_text_or_a_path(self, tmp_path: Path) -> None:
        file = tmp_path / "a.cfg"
        file.write_bytes(b"\xef\xbb\xbf" + WEIGHT.replace("\n", "\r\n").encode())
        assert load_config(str(file)) == load_config(file) == load_config(WEIGHT)
        assert load_config(file).source == str(file)

    def test_errors_of_a_file_name_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a.cfg"
        file.write_text(WEIGHT + "bit_num=99\n", encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert str(caught.value) == f"{file}: line 3: [common_quant_param] bit_num: 99 is outside 0..16"

    @pytest.mark.parametrize("name", BAD_FILES)
    def test_a_file_that_is_no_configuration_is_refused_with_one_reason(self, name: str, tmp_path: Path) -> None:
        content, message = BAD_FILES[name]
        file = tmp_path / "a.cfg"
        file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert len(caught.value.problems) == 1
        assert message in str(caught.value)
        assert str(file) in str(caught.value)
        assert check_config(file) == caught.value.problems

    def test_a_missing_file_suggests_its_sibling(self, tmp_path: Path) -> None:
        (tmp_path / "config.cfg").write_text(WEIGHT, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"there is no such file; did you mean config\.cfg\?"):
            load_config(tmp_path / "confg.cfg")

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"there is no folder .*nowhere either"):
            load_config(tmp_path / "nowhere" / "a.cfg")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder, not a file"):
            load_config(tmp_path)

    def test_an_unreadable_file_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "a.cfg"
        file.write_text(WEIGHT, encoding="utf-8")

        def refuse(*args: object, **more: object) -> None:
            raise PermissionError(13, "Permission denied", str(file))

        # Permissions do not stop an administrator, who may well run the tests.
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(ConfigError, match="may not be read; check its permissions"):
            load_config(file)

    @pytest.mark.parametrize("path", ["a\0b.cfg", "a" * 5000])
    def test_an_impossible_path_is_refused(self, path: str) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)

    @pytest.mark.parametrize("text", ["", "  ", "\n\n"])
    def test_empty_text_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="the configuration is empty"):
            load_config(text)

    def test_text_with_a_nul_byte_is_refused_with_its_line(self) -> None:
        with pytest.raises(ConfigError, match="line 2: holds a NUL byte"):
            load_config("[ptq_lab]\na\0=1\n")

    def test_an_option_without_a_section_is_taken_for_a_path_and_says_so(self) -> None:
        with pytest.raises(ConfigError, match=r"starts with a \[section\]"):
            load_config("bit_num=8")

    @pytest.mark.parametrize("source", [None, 8, b"[a]", ["a"]])
    def test_any_other_type_is_refused(self, source: object) -> None:
        with pytest.raises(ConfigError, match="a configuration is INI text, a path, a dictionary or a QuantConfig"):
            load_config(source)  # type: ignore[arg-type]

    @pytest.mark.parametrize("source", [{}, {"common_quant_param": 8}, {"registry": {"plugin_path": "a\nb"}}])
    def test_a_dictionary_of_the_wrong_shape_is_refused(self, source: object) -> None:
        with pytest.raises(ConfigError):
            load_config(source)  # type: ignore[arg-type]


# name -> (text, options that are refused)
UNSUPPORTED = {
    "weights with fixed bits": (WEIGHT + "bit_num=3\nskip_quant_node=a\nenable_encode=true\n", []),
    "fast and packed": (WEIGHT + "[ptq_lab]\neffort=fast\nencode=packed\nproviders=X\n", []),
    "without effect": (
        WEIGHT + "[weight_quant_param]\nupdate_mindir=false\nmax_segments=4\n"
        "[mixed_bit_weight_quant_param]\nuse_cv_data=true\n",
        [],
    ),
    "nothing to do": ("[full_quant_param]\nsmooth_alpha=0.1\n[ptq_lab]\neffort=best\n", []),
    "full": ("[common_quant_param]\nquant_type=FULL_QUANT\n", []),
    "dynamic": ("[common_quant_param]\nquant_type=DYNAMIC_QUANT\n", []),
    "dynamic and ours": (
        "[common_quant_param]\nquant_type=DYNAMIC_QUANT\n[dynamic_quant_param]\nquant_strategy=ACWL\n"
        "[ptq_lab]\ndynamic_strategy=ACWC\nperformance=full\n",
        [],
    ),
    "dynamic and reports": ("[common_quant_param]\nquant_type=DYNAMIC_QUANT\ndebug_info_save_path=d\n", []),
    "mixed bits": (WEIGHT + "bit_num=0\n", []),
    "auto_tune": (WEIGHT + "bit_num=0\n[mixed_bit_weight_quant_param]\nauto_tune=true\n", []),
    "budgets": (
        WEIGHT + "bit_num=0\n[ptq_lab.mixed_bit]\ntarget_size_mb=1\naverage_bits=4\ncompression_ratio=6\n"
        "min_cosine=0.9\nmax_metric_drop=0.1\ntime_limit_s=3\nbits=2,4\n",
        [],
    ),
    "single layers": (WEIGHT + "[ptq_lab.layer_bits]\nconv1=4\n", []),
    "reports": (WEIGHT + "debug_info_save_path=d\n[ptq_lab]\nmindspore_csv=true\ndebug_quantiles=sampled\n", []),
    "best": (WEIGHT + "[ptq_lab]\neffort=best\n[ptq_lab.weights]\ngptq=false\nblend=0.5\n", []),
    "ours": (
        WEIGHT + "[ptq_lab]\nencode=entropy\npreprocess_order=resize_first\nantialias=true\n"
        "mindspore_csv=true\nequalize=false\nbias_correction_mode=LOCAL\nquantize_ops=all\ndynamic_strategy=ACWC\n",
        [],
    ),
    "on the fly": (WEIGHT + "[weight_quant_param]\ndequant_strategy=ON_THE_FLY\n", []),
    "gptq": (WEIGHT + "[weight_quant_param]\nquant_strategy=GPTQ\n", []),
    "float export": (WEIGHT + "[transform_quant_param]\nexport_precision_mode=FLOAT32\n", ["export_precision_mode"]),
    "a section that is not used": (WEIGHT + "[full_quant_param]\nsmooth_alpha=0.1\nper_channel=false\n", []),
    "smoothing": (
        "[common_quant_param]\nquant_type=FULL_QUANT\n[full_quant_param]\nsmooth_alpha=0.1\nenable_smooth_shift=true\n",
        ["enable_smooth_shift"],
    ),
}  # fmt: skip


class TestUnsupported:
    @pytest.mark.parametrize("name", UNSUPPORTED)
    def test_exactly_what_does_not_work_so_far_is_refused(self, name: str) -> None:
        text, keys = UNSUPPORTED[name]
        assert [problem.key for problem in unsupported(load_config(text))] == keys

    def test_a_refusal_names_line_option_and_what_works(self) -> None:
        problems = unsupported(load_config(WEIGHT + "[transform_quant_param]\nexport_precision_mode=FLOAT32\n"))
        assert [str(problem) for problem in problems] == [
            "line 4: [transform_quant_param] export_precision_mode: FLOAT32 is not implemented yet; so far: QUANT"
        ]
        assert (problems[0].column, problems[0].end_column) == (23, 30)


def test_an_option_that_does_not_work_so_far_says_what_to_use_instead() -> None:
    text = "[common_quant_param]\nquant_type=FULL_QUANT\n[full_quant_param]\nenable_smooth_shift=true\n"
    (problem,) = unsupported(load_config(text))
    assert problem.hint == "leave it out; smooth_alpha rescales without centring"
