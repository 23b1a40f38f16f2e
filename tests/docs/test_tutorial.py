"""The tutorial, followed from its first line to its last."""

from __future__ import annotations

import re
import shlex
import shutil
import sysconfig
from contextlib import ExitStack
from pathlib import Path

import pytest
from documents import Block, Document, shell
from servers import listens
from support import BIN, Process, as_ini, free_port, skip_or_fail, start, wait_until

PAGE = Document("docs/tutorial.md")
for language in ("ini", "python", "sh", "text", "toml"):
    PAGE.blocks(language)

#: What stands for the virtual environment of a reader, who downloads what is here.
INSTALLED = ("celery", "pip", "pserve", "ptasks", "pytest")
WITHOUT_DOWNLOADS = {
    "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of --build-isolation
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
}


class Reader:
    """Somebody who does what the tutorial says, in a folder."""

    def __init__(self, folder: Path, broker: dict[str, str], stack: ExitStack) -> None:
        self.folder = folder
        self.broker = broker
        self.stack = stack
        self.port = str(free_port())
        self.command = self.printed = ""  # the last command, and what it said
        self.services: dict[str, Process] = {}

    def follow(self, block: Block) -> None:
        text = block.text.replace("6543", self.port)
        if block.language == "text":
            self.look_for(text)
        elif block.language == "sh":
            for command in text.splitlines():
                self.run(command)
        else:
            self.write(block.before, text)

    def write(self, before: str, text: str) -> None:
        """Write a file, or add to one, as the sentence before says."""
        verb, name = re.search(r"\b(In|Add to)\s`(\S+)`:$", before).groups()
        # Others use Redis meanwhile.
        text = re.sub(r"celery\.broker_url = .*", as_ini(self.broker), text)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        before = f"{path.read_text()}\n\n" if verb == "Add to" else ""
        path.write_text(before + text)

    def run(self, command: str) -> None:
        task = re.search(r'"task": "(.+)"', self.printed)
        self.command = command.replace("YOUR-ID", task[1] if task else "")
        if service := re.search(r"bin/pserve|\bworker\b|\bbeat\b", command):
            self.run_service(service[0])
            return
        line = self.command.replace("-m venv", "-m venv --without-pip")
        done = shell(line, self.folder, PYTHONPATH="", **WITHOUT_DOWNLOADS)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        self.printed = done.stdout
        if "-m venv" in command:
            self.install()

    def run_service(self, name: str) -> None:
        """Start a process in another terminal, after ending it there."""
        if name in self.services:
            self.services[name].kill()
        words = shlex.split(self.command)
        environ = dict(word.split("=") for word in words if re.match(r"[A-Z_]+=", word))
        program, *arguments = words[len(environ) :]
        command = (self.folder / program, *arguments)
        service = start(*command, cwd=self.folder, **{"PYTHONPATH": "", **environ})
        self.services[name] = self.stack.enter_context(service)
        if name == "bin/pserve":
            self.services[name].wait_until(lambda: listens(int(self.port)))
        elif name == "worker":
            self.services[name].wait_for(" ready.")

    def install(self) -> None:
        """Have in the virtual environment what the tests have."""
        lib = sysconfig.get_path("purelib")
        (site,) = (self.folder / ".venv" / "lib").glob("python*/site-packages")
        (site / "tests.pth").write_text(
            f"import site, sys; sys.path.insert(0, {lib!r}); site.addsitedir({lib!r})\n"
        )
        for name in INSTALLED:
            script = self.folder / ".venv" / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "${{0%/*}}/python" {BIN / name} "$@"\n')
            script.chmod(0o755)

    def look_for(self, text: str) -> None:
        """Find what is to be printed: each line, with a gap for each ellipsis."""
        found = [re.escape(" ".join(line.split())) for line in text.splitlines()]
        lines = [line.replace(r"\ ", " +").replace("…", ".*") for line in found]

        def outputs() -> list[str]:
            return [self.printed, *(each.output for each in self.services.values())]

        def is_printed() -> bool:
            if self.command.startswith("curl http"):
                self.run(self.command)
            return any(all(re.search(each, out) for each in lines) for out in outputs())

        wait_until(is_printed, what=lambda: "\n".join([text, "in", *outputs()]))


@pytest.mark.acceptance
def test_tutorial(tmp_path: Path, redis_queue: dict[str, str]) -> None:
    """Each file is written, each command is run, and each output is printed."""
    pytest.importorskip("pyramid_tm")
    if not shutil.which("curl"):
        skip_or_fail("curl is missing; install it: apt-get install curl")
    broker = {key: value for key, value in redis_queue.items() if "result" not in key}
    with ExitStack() as stack:
        reader = Reader(tmp_path, broker, stack)
        for block in PAGE.all:
            reader.follow(block)
