"""What is read from finished runs."""
