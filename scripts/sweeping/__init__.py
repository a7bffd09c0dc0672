"""The parts of scripts/sweep.py, and of the scripts that tabulate and draw what it leaves."""
