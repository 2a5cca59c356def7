"""What can be said of a configuration beside its model, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptq_lab.checking import check

HEAD = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=8\nmin_quant_weight_channel=0\n"


@pytest.mark.parametrize("patterns", ["*", "re:.", "type:Relu,type:Conv"])
def test_patterns_that_leave_nothing_to_quantize_are_a_warning(model_file: Path, patterns: str) -> None:
    for more in ("", "[ptq_lab.layer_bits]\n*=4\n"):
        said = [str(problem) for problem in check(f"{HEAD}skip_quant_node={patterns}\n{more}", model_file)]
        assert "[common_quant_param] skip_quant_node: matches every node, so nothing is quantized" in said


def test_patterns_that_leave_a_node_are_none(model_file: Path) -> None:
    assert check(f"{HEAD}skip_quant_node=type:Relu\n", model_file) == ()
