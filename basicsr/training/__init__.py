"""The engine under all methods: the loop, one gradient step, optimisers, schedules, gradient rules, calibration, reconstruction.

May import evaluation, networks and what lies below them; knows no method, which are in models.
"""
