"""Crops through a network while calibrators look on; bounds that the output of a module chooses.

May import quant and utils.
"""
