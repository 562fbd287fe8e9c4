"""Searches over settings, and what came of them."""
