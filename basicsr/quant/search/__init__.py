"""Searches for bounds and points: histograms, candidates, their errors, subset selection.

May import quant.ops and quant.spec.
"""
