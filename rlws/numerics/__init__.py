"""What makes XLA fast or exact; nothing here knows of agents."""
