"""Measurements: each module runs us and a reference in alternation and prints ratios."""
