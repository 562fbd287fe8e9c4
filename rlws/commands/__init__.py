"""The verbs of the command `rlws`; each is a module with `add_arguments` and `run`."""
