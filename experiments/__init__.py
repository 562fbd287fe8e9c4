"""Experiments: one run, one module."""
