"""What the tests of tracing share: a traced application, and what it wrote down."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import (
    QUICK,
    Process,
    example_config,
    free_port,
    run,
    serve,
    start_worker,
    wait_until,
)

#: How a task can be sent.
DELIVERIES = ("immediate", "commit", "outbox")


class Traced:
    """A traced application, in processes as users start them.

    Args:
        module: What traces it.
        broker: The Celery settings.
    """

    def __init__(
        self, folder: Path, module: str, broker: dict[str, str], **settings: str
    ) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.port = free_port()
        self.broker = broker
        self.settings = (
            f"pyramid.includes = pyramid_tm pyramid_tasks.contrib.pyramid_tm {module}\n"
            f"traced.output = {self.output}\n"
            f"sqlalchemy.url = sqlite:///{folder}/db.sqlite\n"
            + "".join(f"{key} = {value}\n" for key, value in settings.items())
        )
        self.ini = self.write_ini("config.ini", broker)
        done = self.celery("outbox", "create")
        assert done.returncode == 0, done.stderr

    def write_ini(self, name: str, broker: dict[str, str]) -> Path:
        ini = self.folder / name
        server = f"use = egg:waitress#main\nlisten = localhost:{self.port}\n"
        ini.write_text(
            example_config(
                broker,
                use="call:traced:main",
                app=self.settings,
                more=f"[server:main]\n{server}",
            )
        )
        return ini

    def celery(self, *command: object) -> Any:
        celery = ("celery", "-A", "pyramid_tasks.loaders", "--ini", self.ini)
        return run(*celery, *command, cwd=self.folder)

    @contextmanager
    def worker(self) -> Iterator[Process]:
        with start_worker(self.ini, *QUICK, cwd=self.folder) as process:
            yield process

    @contextmanager
    def web(self, ini: Path | None = None) -> Iterator[None]:
        with serve(ini or self.ini, self.port, cwd=self.folder):
            yield

    def get(self, path: str) -> dict[str, str]:
        url = f"http://localhost:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return dict(json.load(response))

    def fail(self) -> None:
        """Request what raises."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.get("/fail")
        assert caught.value.code == 500
        caught.value.close()

    def defer(self, task: str, delivery: str = "commit") -> str:
        """Defer a task in a request, and return its id."""
        return self.get(f"/defer/{task}?delivery={delivery}")["id"]

    def wait_for_result(self, task_id: str) -> dict[str, str]:
        """Wait until a task ended."""
        ended = {"SUCCESS", "FAILURE", "IGNORED"}
        return wait_until(
            lambda: (
                (found := self.get(f"/result/{task_id}"))["state"] in ended and found
            ),
            what=lambda: f"the end of {task_id}",
        )

    def written(self) -> list[dict[str, Any]]:
        """Return what was written down, a line each."""
        if not self.output.exists():
            return []
        # The last line may be one that is being written.
        lines = self.output.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]
