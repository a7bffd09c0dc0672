"""Quantized tensors as integers: frozen weights, exact sums of codes, and the 8-bit integers that runtimes multiply.

May import quant.quantizers, quant.ops and quant.spec.
"""
