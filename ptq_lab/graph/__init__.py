"""ONNX in, ONNX out: reads models, finds what can be quantized, writes codes and their decoding.

Owns onnx and onnx-ir. Weights stay lazy (in the file's own bytes, or memory-mapped external data) until
somebody asks for one; no function here changes the model it was given, and none runs one.
"""

from ptq_lab.graph.dynamic import DynamicLayer, find_dynamic
from ptq_lab.graph.fold import fold_batchnorm
from ptq_lab.graph.half import store_half
from ptq_lab.graph.integer_products import insert_products
from ptq_lab.graph.model import Model, load_model, save_model
from ptq_lab.graph.observe import observe
from ptq_lab.graph.operators import OPERATORS, Operator
from ptq_lab.graph.opset import raise_opset
from ptq_lab.graph.placement import Placement, place_integers
from ptq_lab.graph.qdq import insert_qdq
from ptq_lab.graph.rewrite import apply_plan, required_onnxruntime, required_opset
from ptq_lab.graph.skip import match_nodes, named_by, nearest_names
from ptq_lab.graph.targets import Rules, Skip, Target, Targets, find_targets
from ptq_lab.graph.tensors import TensorSpec
from ptq_lab.graph.ties import tie_weights

__all__ = [
    "OPERATORS",
    "DynamicLayer",
    "Model",
    "Operator",
    "Placement",
    "Rules",
    "Skip",
    "Target",
    "Targets",
    "TensorSpec",
    "apply_plan",
    "find_dynamic",
    "find_targets",
    "fold_batchnorm",
    "insert_products",
    "insert_qdq",
    "load_model",
    "match_nodes",
    "named_by",
    "nearest_names",
    "observe",
    "place_integers",
    "raise_opset",
    "required_onnxruntime",
    "required_opset",
    "save_model",
    "store_half",
    "tie_weights",
]
