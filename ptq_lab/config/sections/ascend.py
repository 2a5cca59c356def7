"""``[ascend_context]``: what Ascend's compiler wants to know; checked where there is a grammar, and kept."""

from __future__ import annotations

from typing import Annotated, ClassVar

from ptq_lab.config.ascend import input_shapes, profile_groups
from ptq_lab.config.lists import Text
from ptq_lab.config.option import DOCUMENT, ORIGINAL, Option, OptionGroup

_WHEN = "When the same file also steers a conversion for Ascend."


def _kept(what: str, example: str, *, kind: Text | None = None, source: str = ORIGINAL) -> Option:
    """Declare a key that is checked and written back, but changes nothing in an ONNX model."""
    return Option(
        kind=kind or Text(),
        what=what,
        when=_WHEN,
        source=source,
        no_effect="it speaks to Ascend's compiler, which an ONNX model does not pass",
        example=example,
    )


class AscendOptions(OptionGroup):
    """Shapes and switches for Ascend's compiler, kept for it."""

    section: ClassVar[str] = "ascend_context"
    free: ClassVar[bool] = True

    input_shape: Annotated[
        str | None,
        _kept(
            "The shape of each input, -1 for a dynamic axis.",
            "input_1:[-1,32,32,4]",
            kind=Text(check=input_shapes, form="name:[axes];name:[axes]"),
            source=DOCUMENT,
        ),
    ] = None
    dynamic_dims: Annotated[
        str | None,
        _kept(
            "The sizes that dynamic axes may take: one group of profiles per input.",
            "[1~4],[8],[16]",
            kind=Text(check=profile_groups, form="[sizes],[sizes];[sizes],[sizes]"),
            source=DOCUMENT,
        ),
    ] = None
    input_format: Annotated[str | None, _kept("The layout of the inputs.", "NCHW")] = None
    precision_mode: Annotated[str | None, _kept("Which precision Ascend's compiler may use.", "enforce_fp16")] = None
    op_select_impl_mode: Annotated[
        str | None, _kept("Whether Ascend's kernels favour precision or speed.", "high_performance")
    ] = None
    fusion_switch_config_file_path: Annotated[
        str | None, _kept("A file that switches Ascend's fusions.", "./fusion.cfg")
    ] = None
    buffer_optimize: Annotated[str | None, _kept("Whether Ascend's compiler optimises buffers.", "l2_optimize")] = None
    insert_op_config_file_path: Annotated[
        str | None, _kept("A file that describes preprocessing on the device.", "./aipp.cfg")
    ] = None
    om_file_path: Annotated[str | None, _kept("Where Ascend's offline model goes.", "./model")] = None
    aoe_mode: Annotated[str | None, _kept("Which of Ascend's tuners run.", "subgraph tuning")] = None
    dump_model_name: Annotated[str | None, _kept("The name of a dumped model.", "model")] = None
    provider: Annotated[str | None, _kept("Which of Ascend's back ends runs the model.", "ge")] = None
    plugin_custom_ops: Annotated[str | None, _kept("Which operators are replaced by Ascend's own.", "All")] = None
    enable_custom_op: Annotated[
        str | None, _kept("Which operators are replaced by Ascend's own (older name).", "All")
    ] = None
    custom_fusion_pattern: Annotated[str | None, _kept("Which fusions produce Ascend's own operators.", "MatMul")] = (
        None
    )
    op_attrs: Annotated[str | None, _kept("Attributes of Ascend's own operators.", "FlashAttention:1")] = None
    device_id: Annotated[str | None, _kept("The number of the device.", "0")] = None
    output_type: Annotated[str | None, _kept("The data type of the outputs.", "FP32")] = None
    inputs_to_variable: Annotated[str | None, _kept("Inputs that become variables of the graph.", "x")] = None
    outputs_to_variable: Annotated[str | None, _kept("Outputs that become variables of the graph.", "y")] = None
