"""Many runs: methods x networks x scales x bits, their records, tables and plots.

A sweep starts the commands as processes, so it imports what reads options and writes results, and nothing that trains.
May be imported by nobody but its own command and scripts/.
"""
