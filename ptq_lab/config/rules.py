"""What is wrong, odd or worth knowing about options taken together.

Where the original fails, these are errors; where it passes over a mistake in silence, warnings; notes say
what has no effect. Source: the document, and the original's parser and quantizers for what they do.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.ascend import input_shapes, mismatch
from ptq_lab.config.finding import Finding, Key, Rule, located
from ptq_lab.config.options import GROUPS, QuantConfig, needs_met
from ptq_lab.config.row import TYPE, Condition, Row, given, is_, is_not, set_, unset
from ptq_lab.config.rules_blocks import BLOCK_RULES
from ptq_lab.config.rules_samples import SAMPLE_RULES
from ptq_lab.errors import Level, Problem

_COMMON = "common_quant_param"
_FULL = "full_quant_param"
_MIXED = "mixed_bit_weight_quant_param"
_BUDGET = "ptq_lab.mixed_bit"
_ASCEND = "ascend_context"
_BITS = (_COMMON, "bit_num")
_RAW_WIDTHS = (8, 16)  # what can be stored without packing
_GOALS = ("target_size_mb", "average_bits", "compression_ratio", "min_cosine", "max_metric_drop")
_OUTPUT_TYPES = ("FP16", "FP32", "UINT8")


def findings(config: QuantConfig, broken: Container[Key] = frozenset()) -> tuple[Problem, ...]:
    """Return what the rules say about a configuration, in the order of its text.

    Parameters
    ----------
    config : QuantConfig
        Values that passed on their own.
    broken : container of (section, key)
        Options whose value could not be read; rules about them are left out.

    Returns
    -------
    tuple of Problem
        Errors, warnings and notes.

    Examples
    --------
    >>> from ptq_lab.config.options import CommonOptions
    >>> for problem in findings(QuantConfig(common=CommonOptions(quant_type="FULL_QUANT", bit_num=4))):
    ...     print(problem)
    [common_quant_param] bit_num: FULL_QUANT needs 8 bits, not 4
    """
    applicable = (rule for rule in RULES if not any(key in broken for key in rule.reads))
    return tuple(located(config, finding) for rule in applicable for finding in rule.check(config))


def _pins(config: QuantConfig) -> Iterator[Finding]:
    """Look at the widths of single layers: whether they count, and whether they can be stored."""
    if not config.layer_bits or config.common.quant_type is None:
        return
    if not needs_met(config, pins.USED_WITH):
        message = f"not used, because {_unmet(config, pins.USED_WITH)}"
        yield Finding(level="note", section=pins.SECTION, message=message)
        return
    for name, bits in config.layer_bits:
        if not config.common.enable_encode and bits not in _RAW_WIDTHS:
            message = f"enable_encode=false needs 8 or 16 bits, not {bits}"
            hint = "write enable_encode=true, or choose another width"
            yield Finding(level="error", section=pins.SECTION, key=name, message=message, hint=hint)


def _not_used(config: QuantConfig) -> Iterator[Finding]:
    """Name sections, and single options, that the chosen quantization does not look at."""
    if config.common.quant_type is None:
        return
    given = {section for section, _ in config.given}
    for section, group in GROUPS.items():
        if section in given and not needs_met(config, group.used_with):
            message = f"not used, because {_unmet(config, group.used_with)}"
            yield Finding(level="note", section=section, message=message)
            continue
        for key, declared in group.options().items():
            if (section, key) in config.given and not needs_met(config, declared.used_with):
                message = f"not used, because {_unmet(config, declared.used_with)}"
                yield Finding(level="note", section=section, key=key, message=message)


def _unmet(config: QuantConfig, needs: Mapping[str, tuple[object, ...]]) -> str:
    key = next(key for key, values in needs.items() if getattr(config.common, key) not in values)
    return f"{key} is {getattr(config.common, key)}"


def _no_effect(config: QuantConfig) -> Iterator[Finding]:
    for section, group in GROUPS.items():
        for key, declared in group.options().items():
            if declared.no_effect and (section, key) in config.given:
                message = f"accepted without effect: {declared.no_effect}"
                yield Finding(level="note", section=section, key=key, message=message)


def _average_bits(config: QuantConfig) -> Iterator[Finding]:
    budget = config.budget
    lowest = min((*budget.bits, *(bits for _, bits in config.layer_bits)))
    if budget.average_bits is not None and budget.average_bits < lowest:
        message = f"{budget.average_bits:g} cannot be reached with {lowest} bits or more"
        hint = "add a smaller number to bits"
        yield Finding(level="error", section=_BUDGET, key="average_bits", message=message, hint=hint)


def _tuning(config: QuantConfig) -> Iterator[Finding]:
    """Name what does not count, because something else decides how the widths are chosen."""
    budget = next((key for key in _GOALS if getattr(config.budget, key) is not None), "")
    if not needs_met(config, GROUPS[_MIXED].used_with):
        budget = ""  # then nothing of it counts, which has its own note
    by_budget = f"not used, because [{_BUDGET}] {budget} decides"
    tuned = config.mixed_bit.auto_tune
    reasons = {
        "auto_tune": by_budget if budget and tuned else "",
        "init_scale": by_budget if budget else "not used, because auto_tune searches for it" if tuned else "",
        "max_iterations": by_budget if budget else "" if tuned else "not used, because auto_tune is false",
    }
    for key, message in reasons.items():
        if message and (_MIXED, key) in config.given:
            level: Level = "warning" if key == "auto_tune" else "note"
            yield Finding(level=level, section=_MIXED, key=key, message=message)


def _ascend(config: QuantConfig) -> Iterator[Finding]:
    ascend = config.ascend
    if ascend.input_shape is None:
        return
    problem = mismatch(input_shapes(ascend.input_shape), ascend.dynamic_dims or "")
    key = "dynamic_dims" if ascend.dynamic_dims else "input_shape"
    if problem:
        yield Finding(level="error", section=_ASCEND, key=key, message=problem)


def _other_tools(config: QuantConfig) -> Iterator[Finding]:
    if "model_param" in config.unused and config.common.quant_type is not None:
        message = "the original ignores every quantization section when this one is present"
        yield Finding(level="note", section="model_param", message=message)
    plugin = any(name == "registry" and "plugin_path" in dict(entries) for name, entries in config.foreign)
    if plugin and config.common.quant_type is not None:
        message = "the original refuses plug-ins together with quantization; here they are not loaded"
        yield Finding(level="warning", section="registry", message=message)


_WEIGHT_BITS = ("ptq_lab", "weight_bits")
_ENCODE = (_COMMON, "enable_encode")
_TUNE = (_MIXED, "auto_tune")
_DEVICE = (_FULL, "target_device")
_CORRECTION = (_FULL, "bias_correction")
_SHAPE, _DIMS, _OUTPUT = ((_ASCEND, key) for key in ("input_shape", "dynamic_dims", "output_type"))
_BUDGET_KEYS = tuple((_BUDGET, key) for key in _GOALS)
_FULL_OR_UNSET = is_(TYPE, None, "FULL_QUANT")
_MIXED_BITS = (is_(TYPE, "WEIGHT_QUANT"), is_(_BITS, 0))
_NO_CORRECTION = "{target_device} does without bias correction, so it is switched off"

# In the order in which they speak about one place. Rows are data, which the editor extension reads as they are;
# what is a function here is a function of the same name there.
RULES: tuple[Row | Rule, ...] = (
    Row(
        level="note",
        section=_COMMON,
        key="quant_type",
        message="is not given, so nothing is quantized",
        hint=f"one of {GROUPS[_COMMON].options()['quant_type'].kind.allowed()}",
        when=(is_(TYPE, None),),
    ),
    Row(
        level="error",
        section=_COMMON,
        key="bit_num",
        message="{quant_type} needs 8 bits, not {bit_num}",
        when=(is_(TYPE, "FULL_QUANT", "DYNAMIC_QUANT"), is_not(_BITS, 8)),
    ),
    Row(
        level="error",
        section="ptq_lab",
        key="weight_bits",
        message="{target_device} takes weights of 8 bits, not {weight_bits}",
        hint="leave weight_bits out, or quantize for the CPU",
        when=(is_(TYPE, "FULL_QUANT"), is_(_DEVICE, "KIRIN", "NVGPU", "DSP", "ASCEND"), is_not(_WEIGHT_BITS, 8)),
    ),
    Row(
        level="error",
        section=_COMMON,
        key="enable_encode",
        message="false needs bit_num 8 or 16, not {bit_num}",
        hint="write enable_encode=true, or choose another bit_num",
        when=(is_(TYPE, "WEIGHT_QUANT"), is_(_ENCODE, False), is_not(_BITS, *_RAW_WIDTHS)),
    ),
    Rule(reads=(TYPE, _ENCODE), check=_pins),
    Rule(reads=(TYPE, _BITS), check=_not_used),
    Rule(reads=(), check=_no_effect),
    Row(
        level="warning",
        section=_BUDGET,
        message="not used, because bit_num is {bit_num}",
        hint="write bit_num=0 for mixed bits",
        when=(given((_BUDGET, "")), is_(TYPE, "WEIGHT_QUANT"), is_not(_BITS, 0)),
    ),
    Rule(reads=((_BUDGET, "average_bits"), (_BUDGET, "bits")), check=_average_bits),
    Rule(reads=(TYPE, _BITS, _TUNE, *_BUDGET_KEYS), check=_tuning),
    Row(
        level="note",
        section=_BUDGET,
        key="time_limit_s",
        message="not used, because init_scale is met without a search",
        hint=f"write auto_tune=true, or one of {', '.join(_GOALS)}",
        when=(*_MIXED_BITS, is_(_TUNE, False), *map(unset, _BUDGET_KEYS), set_((_BUDGET, "time_limit_s"))),
    ),
    Row(
        level="warning",
        section=_FULL,
        key="bias_correction",
        message=_NO_CORRECTION,
        hint="write bias_correction=false",
        when=(_FULL_OR_UNSET, is_(_DEVICE, "KIRIN"), is_(_CORRECTION, True), given(_CORRECTION)),
    ),
    Row(
        level="note",
        section=_FULL,
        key="target_device",
        message=_NO_CORRECTION,
        hint="write bias_correction=false",
        when=(_FULL_OR_UNSET, is_(_DEVICE, "KIRIN"), is_(_CORRECTION, True), given(_CORRECTION, yes=False)),
    ),
    Row(
        level="note",
        section=_FULL,
        key="target_device",
        message="ASCEND needs the flag --optimize=ascend_oriented beside this configuration",
        when=(_FULL_OR_UNSET, is_(_DEVICE, "ASCEND")),
    ),
    Row(
        level="note",
        section=_FULL,
        key="smooth_alpha",
        message="{smooth_alpha:g} is not between 0 and 1, so nothing is rescaled",
        when=(Condition(option=(_FULL, "smooth_alpha"), operation="not between", values=(0, 1)),),
    ),
    Rule(reads=(_SHAPE, _DIMS), check=_ascend),
    Row(
        level="warning",
        section=_ASCEND,
        key="dynamic_dims",
        message="is given without input_shape, so no axis is dynamic",
        when=(unset(_SHAPE), set_(_DIMS)),
    ),
    Row(
        level="warning",
        section=_ASCEND,
        key="output_type",
        message="{output_type!r} is not one of " + ", ".join(_OUTPUT_TYPES),
        when=(set_(_OUTPUT), is_not(_OUTPUT, *_OUTPUT_TYPES)),
    ),
    *BLOCK_RULES,
    *SAMPLE_RULES,
    Rule(reads=(TYPE,), check=_other_tools),
)
