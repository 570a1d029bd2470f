"""The libraries that are compared, and how each is told a policy."""
