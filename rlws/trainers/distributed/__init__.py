"""Playing in other processes, here or on other machines, by Ray."""
