"""What the options of the command line are known by to what comes later."""

from __future__ import annotations

#: In the ``meta`` of click's context: for :mod:`pyramid_tasks.loaders.commandline`.
URI_KEY = "pyramid_tasks.config_uri"
VARIABLES_KEY = "pyramid_tasks.variables"
COMMAND_KEY = "pyramid_tasks.command"

#: The variable that says what ``--ini`` says.
ENVIRON_KEY = "CELERY_INI"

#: The commands that ``--reload`` goes with.
RELOADED = ("worker", "beat")
