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
from ptq_lab.config.rules_samples import SAMPLE_RULES
from ptq_lab.errors import Level, Problem

_COMMON = "common_quant_param"
_FULL = "full_quant_param"
_MIXED = "mixed_bit_weight_quant_param"
_BUDGET = "ptq_lab.mixed_bit"
_ASCEND = "ascend_context"
_TYPE = (_COMMON, "quant_type")
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


def _nothing_to_do(config: QuantConfig) -> Iterator[Finding]:
    if config.common.quant_type is None:
        allowed = GROUPS[_COMMON].options()["quant_type"].kind.allowed()
        message = "is not given, so nothing is quantized"
        yield Finding(level="note", section=_COMMON, key="quant_type", message=message, hint=f"one of {allowed}")


def _widths(config: QuantConfig) -> Iterator[Finding]:
    quant_type, bits = config.common.quant_type, config.common.bit_num
    if quant_type in {"FULL_QUANT", "DYNAMIC_QUANT"} and bits != 8:
        yield Finding(level="error", section=_COMMON, key="bit_num", message=f"{quant_type} needs 8 bits, not {bits}")


def _encoding(config: QuantConfig) -> Iterator[Finding]:
    common = config.common
    if common.quant_type == "WEIGHT_QUANT" and not common.enable_encode and common.bit_num not in _RAW_WIDTHS:
        message = f"false needs bit_num 8 or 16, not {common.bit_num}"
        hint = "write enable_encode=true, or choose another bit_num"
        yield Finding(level="error", section=_COMMON, key="enable_encode", message=message, hint=hint)


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


def _budgets(config: QuantConfig) -> Iterator[Finding]:
    common, budget = config.common, config.budget
    given = any(section == _BUDGET for section, _ in config.given)
    if given and common.quant_type == "WEIGHT_QUANT" and common.bit_num != 0:
        message = f"not used, because bit_num is {common.bit_num}"
        yield Finding(level="warning", section=_BUDGET, message=message, hint="write bit_num=0 for mixed bits")
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


def _time_limit(config: QuantConfig) -> Iterator[Finding]:
    searched = config.mixed_bit.auto_tune or any(getattr(config.budget, key) is not None for key in _GOALS)
    mixed = needs_met(config, GROUPS[_MIXED].used_with)
    if mixed and not searched and config.budget.time_limit_s is not None:
        message = "not used, because init_scale is met without a search"
        hint = f"write auto_tune=true, or one of {', '.join(_GOALS)}"
        yield Finding(level="note", section=_BUDGET, key="time_limit_s", message=message, hint=hint)


def _device(config: QuantConfig) -> Iterator[Finding]:
    full = config.full
    if config.common.quant_type not in {None, "FULL_QUANT"}:
        return
    if full.target_device == "KIRIN" and full.bias_correction:
        given = (_FULL, "bias_correction") in config.given
        key = "bias_correction" if given else "target_device"
        message = f"{full.target_device} does without bias correction, so it is switched off"
        level: Level = "warning" if given else "note"
        yield Finding(level=level, section=_FULL, key=key, message=message, hint="write bias_correction=false")
    if full.target_device == "ASCEND":
        message = "ASCEND needs the flag --optimize=ascend_oriented beside this configuration"
        yield Finding(level="note", section=_FULL, key="target_device", message=message)


def _smoothing(config: QuantConfig) -> Iterator[Finding]:
    if not 0 < config.full.smooth_alpha < 1:
        message = f"{config.full.smooth_alpha:g} is not between 0 and 1, so nothing is rescaled"
        yield Finding(level="note", section=_FULL, key="smooth_alpha", message=message)


def _ascend(config: QuantConfig) -> Iterator[Finding]:
    ascend = config.ascend
    if ascend.input_shape is not None:
        problem = mismatch(input_shapes(ascend.input_shape), ascend.dynamic_dims or "")
        key = "dynamic_dims" if ascend.dynamic_dims else "input_shape"
        if problem:
            yield Finding(level="error", section=_ASCEND, key=key, message=problem)
    elif ascend.dynamic_dims is not None:
        message = "is given without input_shape, so no axis is dynamic"
        yield Finding(level="warning", section=_ASCEND, key="dynamic_dims", message=message)


def _ascend_output(config: QuantConfig) -> Iterator[Finding]:
    output_type = config.ascend.output_type
    if output_type is not None and output_type not in _OUTPUT_TYPES:
        message = f"{output_type!r} is not one of {', '.join(_OUTPUT_TYPES)}"
        yield Finding(level="warning", section=_ASCEND, key="output_type", message=message)


def _other_tools(config: QuantConfig) -> Iterator[Finding]:
    if "model_param" in config.unused and config.common.quant_type is not None:
        message = "the original ignores every quantization section when this one is present"
        yield Finding(level="note", section="model_param", message=message)
    plugin = any(name == "registry" and "plugin_path" in dict(entries) for name, entries in config.foreign)
    if plugin and config.common.quant_type is not None:
        message = "the original refuses plug-ins together with quantization; here they are not loaded"
        yield Finding(level="warning", section="registry", message=message)


_BUDGET_KEYS = tuple((_BUDGET, key) for key in _GOALS)

RULES: tuple[Rule, ...] = (
    Rule(reads=(_TYPE,), check=_nothing_to_do),
    Rule(reads=(_TYPE, _BITS), check=_widths),
    Rule(reads=(_TYPE, _BITS, (_COMMON, "enable_encode")), check=_encoding),
    Rule(reads=(_TYPE, (_COMMON, "enable_encode")), check=_pins),
    Rule(reads=(_TYPE, _BITS), check=_not_used),
    Rule(reads=(), check=_no_effect),
    Rule(reads=(_TYPE, _BITS, (_BUDGET, "average_bits"), (_BUDGET, "bits")), check=_budgets),
    Rule(reads=(_TYPE, _BITS, (_MIXED, "auto_tune"), *_BUDGET_KEYS), check=_tuning),
    Rule(reads=(_TYPE, _BITS, (_MIXED, "auto_tune"), *_BUDGET_KEYS), check=_time_limit),
    Rule(reads=(_TYPE, (_FULL, "target_device"), (_FULL, "bias_correction")), check=_device),
    Rule(reads=((_FULL, "smooth_alpha"),), check=_smoothing),
    Rule(reads=((_ASCEND, "input_shape"), (_ASCEND, "dynamic_dims")), check=_ascend),
    Rule(reads=(), check=_ascend_output),
    *SAMPLE_RULES,
    Rule(reads=(_TYPE,), check=_other_tools),
)
