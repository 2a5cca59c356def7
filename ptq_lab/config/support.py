"""What a configuration asks for that is declared and checked, but does nothing so far."""

from __future__ import annotations

from ptq_lab.config.finding import Finding, located
from ptq_lab.config.option import Option
from ptq_lab.config.options import GROUPS, QuantConfig, needs_met, value_of
from ptq_lab.errors import Problem


def unsupported(config: QuantConfig) -> tuple[Problem, ...]:
    r"""Return what a configuration asks for that is declared but does not work so far.

    Sections that the chosen ``quant_type`` does not use are passed over, and so is everything when there is
    no ``quant_type``.

    Parameters
    ----------
    config : QuantConfig
        A loaded configuration.

    Returns
    -------
    tuple of Problem
        One error per option, in the order of the text; empty when all of it works.

    Examples
    --------
    >>> from ptq_lab.config import load_config
    >>> text = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n[transform_quant_param]\nexport_precision_mode=FLOAT32\n"
    >>> for problem in unsupported(load_config(text)):
    ...     print(problem.message)
    FLOAT32 is not implemented yet
    """
    if config.common.quant_type is None:
        return ()
    found = []
    for section, group in GROUPS.items():
        if not needs_met(config, group.used_with):
            continue
        for key, declared in group.options().items():
            value = value_of(config, section, key)
            everywhere = config.common.quant_type in declared.implemented_for
            if everywhere or declared.works(value, group.default(key)):
                continue
            message = f"{declared.kind.write(value)} is not implemented yet"
            hint = declared.instead or _available(declared, group.default(key))
            finding = Finding(level="error", section=section, key=key, message=message, hint=hint)
            found.append(located(config, finding))
    return tuple(sorted(found, key=lambda problem: (problem.line or float("inf"), problem.column)))


def _available(declared: Option, default: object) -> str:
    """Return what works so far, as a hint."""
    if isinstance(declared.implemented, range):
        return f"so far: {declared.implemented[0]}..{declared.implemented[-1]}"
    words = list(declared.implemented) if isinstance(declared.implemented, tuple) else []
    if default not in (None, *words):
        words.append(declared.kind.write(default))
    return f"so far: {', '.join(words)}" if words else "leave it out"
