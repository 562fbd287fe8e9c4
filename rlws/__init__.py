"""RL Workshop."""
