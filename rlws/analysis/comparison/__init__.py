"""Comparisons of two sides, over seeds."""
