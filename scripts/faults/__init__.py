"""Faults that a machine or a user puts into a running command; see fault_campaign.py."""
