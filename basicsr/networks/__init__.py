"""From options to a network with its weights: in full precision, to be trained, or with quantizers inside.

May import archs, quant and utils.
"""
