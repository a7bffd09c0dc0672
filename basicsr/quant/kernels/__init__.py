"""Loops in C, compiled where a run begins, for what trainings spend most of their time in: one pass over memory instead of twenty.

May import quant.spec.
"""
