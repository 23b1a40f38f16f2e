"""The command line: runs the benchmarks, all or some, and prints one table."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from compileall import compile_dir
from importlib import import_module
from pathlib import Path

from .brokers import SERVER_ERRORS
from .measuring import Effort
from .report import Section, machine, print_head, print_section, versions, write

#: Each is a module with ``run(effort)``, in the order of the table.
BENCHMARKS = (
    "trace",
    "defer",
    "throughput",
    "latency",
    "deliveries",
    "relay",
    "web",
    "inbox",
    "startup",
    "webstart",
    "imports",
    "growth",
    "leaks",
    "children",
)
PACKAGE = Path(__file__).parents[1] / "pyramid_tasks"
COMMAND = ".venv/bin/python -m benchmarks"


def main() -> None:
    """Run what the command line names."""
    options = _parse()
    # Both as Ctrl-C: whatever runs is stopped, and nothing is left on a server.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # As an installation does it: the modules of Celery are compiled by now.
    compile_dir(PACKAGE, quiet=1)
    effort = Effort(quick=options.quick, rounds=options.rounds)
    begin = time.monotonic()
    try:
        print(f"{machine()}; load {os.getloadavg()[0]:.1f}\n{versions()}\n")
    except SERVER_ERRORS as error:
        sys.exit(f"{error}\nRedis, RabbitMQ and PostgreSQL must run: CONTRIBUTING.md")
    print_head()
    sections: list[Section] = []
    for name in options.names or BENCHMARKS:
        for section in import_module(f"benchmarks.{name}").run(effort):
            section.command = f"{COMMAND} {section.command}"
            print_section(section)
            sections.append(section)
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{minutes:.1f} minutes")
    if options.write:
        turns = f"with {effort.rounds} turns of each case, " if effort.rounds else ""
        write(options.write, sections, f"{turns}in {minutes:.0f} minutes")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to measure, in place of all: {', '.join(BENCHMARKS)}",
    )
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--rounds", type=int, help="turns of each case")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="a Markdown file for the tables"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.write and (options.quick or options.names):
        parser.error("--write takes the whole run, without names and --quick")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nstopped")
