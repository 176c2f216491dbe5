"""Experiments on what the method is worth: ``python -m benchmarks.experiments --help``, or ``make experiments``."""
