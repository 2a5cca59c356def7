"""Everything that can be said about a configuration without running it: what `ptq-lab check` and ``--check`` tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptq_lab.config import check_config, load_config, unsupported
from ptq_lab.errors import Problem


def check(config: str | Path, model: Any = None) -> tuple[Problem, ...]:
    r"""Return every problem of a configuration: its text, what is not implemented yet, and how it fits a model.

    Parameters
    ----------
    config : INI text or path
    model : path or onnx.ModelProto, optional
        The model whose nodes ``skip_quant_node`` and ``[ptq_lab.layer_bits]`` should name.

    Examples
    --------
    >>> text = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n[transform_quant_param]\nexport_precision_mode=FLOAT32\n"
    >>> for problem in check(text):
    ...     print(problem)
    line 4: [transform_quant_param] export_precision_mode: FLOAT32 is not implemented yet; so far: QUANT
    """
    problems = check_config(config)
    if any(problem.level == "error" for problem in problems):
        return problems
    loaded = load_config(config)
    problems += unsupported(loaded)
    pinned = loaded.layer_bits and loaded.common.quant_type == "WEIGHT_QUANT"
    if model is None or not (loaded.common.skip_quant_node or pinned):
        return problems
    from ptq_lab.graph import load_model, match_nodes  # onnx is not needed to check a text

    original = load_model(model)
    nodes = [(node.name or "", node.op_type) for node in original.graph]
    skipped = match_nodes(loaded.common.skip_quant_node, nodes)
    if nodes and len(skipped.nodes) == len(dict(nodes)):
        message = "matches every node, so nothing is quantized"
        problems += (Problem(level="warning", section="common_quant_param", key="skip_quant_node", message=message),)
    if pinned:
        from ptq_lab.weight_quant import name_problems

        return problems + name_problems(original, loaded)
    return problems + skipped.unmatched
