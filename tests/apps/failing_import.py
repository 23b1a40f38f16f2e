"""A module that cannot be imported."""

import missing_dependency  # noqa: F401


def main(global_config, **settings):
    return None
