"""Says when an application is loaded: ``pyramid.includes = announce``."""

import sys

LOADED = "announce: the application is loaded"


def includeme(config):
    config.action(None, lambda: sys.stderr.write(f"{LOADED}\n"))
