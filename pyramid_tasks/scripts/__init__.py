"""Scripts that look at an application from the command line, beside Pyramid's own."""
