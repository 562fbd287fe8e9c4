"""RL Workshop: write a reinforcement learning algorithm once, run it everywhere JAX does."""
