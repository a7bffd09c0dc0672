"""What runs exported networks, and in which precision: the names that arguments take."""

from typing import Literal

RuntimeName = Literal["openvino", "onnxruntime"]
Precision = Literal["f32", "bf16"]
ONNX_SUFFIX = ".onnx"
ONNXRUNTIME_ENDING = "_onnxruntime"
"""Of the name of a quantized graph in the form for ONNX Runtime."""
