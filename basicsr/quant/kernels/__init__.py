"""Loops in C, compiled once on a machine, for what trainings and searches spend most of their time in: one pass over memory instead of twenty.

May import quant.spec and utils.compiling.
"""
