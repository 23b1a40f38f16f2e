"""What the tests of tracing share: a traced application, and what it wrote down."""

import json
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support import (
    QUICK,
    Process,
    as_ini,
    example_config,
    free_port,
    ini_form,
    run,
    serve,
    start_worker,
    wait_until,
)

#: How a task can be sent.
DELIVERIES = ("immediate", "commit", "outbox")


class Traced:
    """An application that a module traces, in processes as users start them."""

    def __init__(
        self, folder: Path, module: str, broker: dict[str, str], **settings: str
    ) -> None:
        self.folder, self.broker = folder, broker
        self.output = folder / "output"
        self.port = free_port()
        self.settings = {
            "pyramid.includes": f"pyramid_tm pyramid_tasks.contrib.pyramid_tm {module}",
            "traced.output": str(self.output),
            "sqlalchemy.url": f"sqlite:///{folder}/db.sqlite",
        } | settings
        self.ini = self.write_ini("config.ini", broker)
        done = self.celery("outbox", "create")
        assert done.returncode == 0, done.stderr

    def write_ini(self, name: str, broker: dict[str, str]) -> Path:
        app, ini = as_ini(self.settings, ""), self.folder / name
        server = "[server:main]\nuse = egg:waitress#main\n"
        server += f"listen = localhost:{self.port}\n"
        ini.write_text(
            example_config(broker, use="call:traced:main", app=app, more=server)
        )
        return ini

    def celery(self, *command: object) -> Any:
        return run(*ini_form(self.ini, *command), cwd=self.folder)

    def worker(self) -> AbstractContextManager[Process]:
        return start_worker(self.ini, *QUICK, cwd=self.folder)

    def web(self, ini: Path | None = None) -> AbstractContextManager[str]:
        return serve(ini or self.ini, self.port, cwd=self.folder)

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

        def ended() -> dict[str, str] | None:
            result = self.get(f"/result/{task_id}")
            return (
                None if result["state"] in {"PENDING", "STARTED", "RETRY"} else result
            )

        return wait_until(ended, what=lambda: f"the end of {task_id}")

    def written(self) -> list[dict[str, Any]]:
        """Return what was written down, a line each."""
        self.output.touch()
        # The last line may be one that is being written.
        return [json.loads(line) for line in self.output.read_text().split("\n")[:-1]]
