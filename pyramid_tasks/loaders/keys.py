"""The keys under which the options of the command line leave their values."""

from __future__ import annotations

#: Keys in the ``meta`` of click's context.
URI_KEY = "pyramid_tasks.config_uri"
VARIABLES_KEY = "pyramid_tasks.variables"
COMMAND_KEY = "pyramid_tasks.command"

#: The environment variable that stands for ``--ini``.
ENVIRON_KEY = "CELERY_INI"

#: The commands that accept ``--reload``.
RELOADED = ("worker", "beat")
