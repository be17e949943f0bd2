"""Executors, the reference simulator and the meter."""
