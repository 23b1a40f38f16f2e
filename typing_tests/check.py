"""Run mypy and pyright over the files beside this one.

Usage: python typing_tests/check.py DIRECTORY

They run as where celery-types is not installed, and again, with those in celery_types/,
as where it is. DIRECTORY is where it is installed instead, by
"pip install --target DIRECTORY --requirement typing_tests/requirements.txt".
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.py"))
FILES_WITH_CELERY_TYPES = [*FILES, *sorted(HERE.glob("celery_types/*.py"))]

CHECKERS = (["mypy"], ["pyright", "--pythonpath", sys.executable])


def check(files: list[Path], **environ: str) -> bool:
    """Tell whether all checkers find what the files expect."""
    # Pyright asks the network for newer versions of itself otherwise.
    environ = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", **environ}
    codes = [
        subprocess.run(
            [sys.executable, "-m", *checker, *files], cwd=HERE, env=environ, check=False
        ).returncode
        for checker in CHECKERS
    ]
    return not any(codes)


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004
        sys.exit(__doc__)
    celery_types = Path(sys.argv[1]).resolve(strict=True)
    passed = [
        check(FILES),
        check(FILES_WITH_CELERY_TYPES, PYTHONPATH=str(celery_types)),
    ]
    sys.exit(not all(passed))
