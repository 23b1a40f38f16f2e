"""The files where a worker or beat keeps its state."""

from __future__ import annotations

import os
from pathlib import Path


def check_files(**files: str | None) -> None:
    """End a process that cannot write a file.

    Args:
        files: The paths of files, by the settings or options that name them.
    """
    for name, path in files.items():
        if problem := problem_of_file(path):
            raise SystemExit(f"Error: {name} {problem}")


def problem_of_file(path: str | None) -> str | None:
    """Return what is wrong with the file in which a worker or beat keeps something.

    Args:
        path: The path of the file, or ``None`` for no file.
    """
    if not path:
        return None
    folder = str(Path(path).parent)
    # A worker puts its name in place of %n, or the like.
    if "%" in folder or os.access(folder, os.W_OK | os.X_OK):
        return None
    return f"= {path} is in a folder that is not there, or not to be written to."
