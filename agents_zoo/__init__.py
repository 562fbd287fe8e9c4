"""Algorithms, each in one file: the paper, its settings, the learner, an actor if need be."""
