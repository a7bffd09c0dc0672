"""Many runs: methods x networks x scales x bits, their records, tables and plots; the commands are started as processes.

May import what reads options and writes results, nothing that trains; imported by its own command and scripts/ only.
"""
