"""Sections that belong to other tools: accepted, kept, and not used here.

Source: the original's configuration parser. A tuple lists the only keys a section may have; None lets all in.
"""

from __future__ import annotations

FOREIGN: dict[str, tuple[str, ...] | None] = {
    "registry": ("plugin_path", "disable_fusion", "fusion_blacklists"),
    "micro_param": (
        "target",
        "codegen_mode",
        "debug_mode",
        "support_parallel",
        "enable_micro",
        "save_path",
        "project_name",
        "keep_original_weight",
        "changeable_weights_name",
        "inputs_shape",
        "dynamic_dim_params",
    ),
    "acl_option_cfg_param": (
        "device_id",
        "input_format",
        "input_shape_vector",
        "input_shape",
        "output_type",
        "precision_mode",
        "op_select_impl_mode",
        "fusion_switch_config_file_path",
        "dynamic_batch_size",
        "buffer_optimize",
        "insert_op_config_file_path",
        "dynamic_image_size",
        "dynamic_dims",
        "aoe_mode",
        "custom_opp_path",
    ),
    "cpu_option_cfg_param": ("architecture", "instruction"),
    "om_converter": (
        "input_name_vector",
        "input_shape_vector",
        "input_data_type_vector",
        "output_name_vector",
        "output_shape_vector",
        "output_data_type_vector",
    ),
    "model_param": (
        "fmk",
        "modelFile",
        "inputDataType",
        "outputDataType",
        "fp16",
        "trainModel",
        "inputShape",
        "inputDataFormat",
        "infer",
        "NoFusion",
    ),
    "acl_init_options": None,
    "acl_build_options": None,
    "aoe_global_options": None,
    "aoe_tuning_options": None,
    "graph_kernel_param": None,
}

MODELS = "model_param"  # may be repeated, once per model; its keys then are no duplicates
OUR_PREFIX = "ptq_lab"  # a section of this name space that does not exist is a mistake, not another tool's
