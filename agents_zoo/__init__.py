"""Algorithms, each in one file: the paper, `Config`, the learner, and the actor if it is special."""
