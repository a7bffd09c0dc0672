"""Operators of this project in OpenVINO."""

import functools
import io
from typing import Any

from basicsr.deploy.swin_kernel import OPERATOR, Addresses, check_sizes, run_kernel
from basicsr.quant.integers.operators import NAMESPACE
from basicsr.utils.errors import OptionsError
from basicsr.utils.extras import require


def read_model(graph: bytes, threads: int) -> Any:
    """Return a serialized ONNX graph as an `openvino.Model`.

    Args:
        graph: with nodes of `swin_kernel.swin_layer`, or without.
        threads: of an operator of this project.
    """
    extension = require("openvino.frontend.onnx").ConversionExtension
    frontend = require("openvino.frontend").FrontEndManager().load_by_framework("onnx")
    frontend.add_extension(extension(OPERATOR, NAMESPACE, functools.partial(_converted, threads=threads)))
    return frontend.convert(frontend.load(io.BytesIO(graph)))


def _converted(node: Any, threads: int) -> Any:
    inputs = [node.get_input(index) for index in range(3)]
    return _operator_class()(inputs, list(node.get_attribute("sizes")), threads).outputs()


@functools.cache
def _operator_class() -> Any:
    """Return the class of the operator; OpenVINO is imported only where it is used."""
    openvino = require("openvino")

    class SwinLayer(openvino.Op):  # type: ignore[misc, name-defined]  # known when it is called
        """See `swin_kernel.swin_layer`."""

        def __init__(self, inputs: Any = None, sizes: Any = (), threads: int = 1) -> None:
            super().__init__(self, inputs)
            self._sizes, self._threads = sizes, threads

        def validate_and_infer_types(self) -> None:
            self.set_output_type(0, openvino.Type.f32, self.get_input_partial_shape(0))

        def clone_with_new_inputs(self, new_inputs: Any) -> Any:
            return SwinLayer(new_inputs, self._sizes, self._threads)

        def visit_attributes(self, _visitor: Any) -> bool:
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            outputs[0].shape = inputs[0].shape
            x, numbers, codes, y = (tensor.data for tensor in (*inputs, outputs[0]))
            if [str(array.dtype) for array in (x, numbers, codes)] != ["float32", "float32", "int8"] or len(x) != 1:
                raise OptionsError("A Swin layer takes one map in float32. Export the network again.")
            check_sizes(x.shape[1:], self._sizes, numbers.size, codes.size)
            addresses = Addresses(x.ctypes.data, y.ctypes.data, numbers.ctypes.data, codes.ctypes.data)
            run_kernel(addresses, x.shape[1:], self._sizes, self._threads)
            return True

    return SwinLayer
