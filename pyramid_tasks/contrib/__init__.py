"""Includes for applications that use another package; each needs an extra."""
