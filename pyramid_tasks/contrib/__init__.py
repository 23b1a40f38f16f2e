"""What needs a package that the core does not; each is an extra."""
