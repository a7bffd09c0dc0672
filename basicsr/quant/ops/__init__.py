"""Pure functions on tensors: quantize, dequantize, fake quantization with closed-form gradients, the sets of points of DFSQ.

May import quant.spec.
"""
