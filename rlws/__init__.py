"""RL Workshop: write a reinforcement learning algorithm once, run it everywhere JAX does."""

import os

# Dispatching from the calling thread halves the time of a small policy call on a CPU. JAX reads
# this when it is imported, which we do not do here: `import rlws` stays light.
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")
