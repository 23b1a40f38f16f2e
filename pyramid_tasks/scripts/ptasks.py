"""``ptasks``: the tasks of an application, its schedule, and its problems."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from pyramid.scripts.common import parse_vars

from ..loaders.errors import explain
from ..loaders.opening import open_app
from .connecting import BOUND, Answer, connect
from .listing import describe, list_schedule, list_tasks
from .problems import find_problems
from .table import print_table

if TYPE_CHECKING:
    from celery import Celery

_DESCRIPTION = """\
Print the tasks of a Pyramid application in the order of their names: the function, the
queue that the task is sent to, the derivers around it with the outermost first, its
options as far as they are not Celery's defaults, and where it was registered. With
--schedule, print its periodic tasks instead. With --check, print what is wrong with the
application and its configuration, and end with status 1 if anything is.

This command accepts one positional argument named 'config_uri', as 'celery --ini' does.
The format is 'inifile#name', where [celery:name], or else [app:name], is loaded. If the
name is left off, 'main' will be assumed.  Example: 'ptasks myapp.ini'.

"""

_TASK_COLUMNS = ("name", "function", "queue", "derivers", "options", "registered")
_SCHEDULE_COLUMNS = ("name", "task", "schedule", "next_run", "registered")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="ptasks",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "-s",
        "--schedule",
        action="store_true",
        help="Display the periodic tasks, each with its next run: when a beat that "
        "starts now would first queue it. A beat that runs already counts the seconds "
        "of an interval from the last run.",
    )
    what.add_argument(
        "-c",
        "--check",
        action="store_true",
        help="Display every problem of the application and its configuration. Without "
        "--connect, nothing is connected to, but by the application itself.",
    )
    parser.add_argument(
        "--connect",
        action="store_true",
        help="With --check, also connect to the broker, the result backend and the "
        "database of outbox and inbox, and display what each server answers. A server "
        f"has {BOUND:g} seconds.",
    )
    parser.add_argument(
        "-i",
        "--ignore",
        action="append",
        default=[],
        metavar="GLOB",
        help="With --check, a setting that Celery does not know but one of its plugins "
        "does, such as 'redbeat_*', or such an option of a task. Can be repeated.",
    )
    parser.add_argument(
        "-j", "--json", action="store_true", help="Print JSON, with more details."
    )
    parser.add_argument(
        "-g",
        "--glob",
        default="",
        help="Display tasks whose name or function matches glob pattern.",
    )
    parser.add_argument(
        "-f",
        "--format",
        default="",
        help="Choose which columns to display, separated by commas: "
        f"{','.join(_TASK_COLUMNS)}; with --schedule {','.join(_SCHEDULE_COLUMNS)}.",
    )
    parser.add_argument(
        "config_uri",
        nargs="?",
        default=None,
        help="The URI to the configuration file.",
    )
    parser.add_argument(
        "config_vars",
        nargs="*",
        default=(),
        help="Variables required by the config file. For example, "
        "`http_port=%%(http_port)s` would expect `http_port=8080` to be passed here.",
    )
    return parser


def main(argv: Sequence[str] = sys.argv, quiet: bool = False) -> int:  # noqa: FBT001, FBT002 as in Pyramid's scripts
    """Run the command, and return its exit status."""
    try:
        status = _main(argv, quiet=quiet)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has gone. Python would write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _main(argv: Sequence[str], *, quiet: bool) -> int:
    parser = make_parser()
    # Options may also come after the positional arguments.
    args = parser.parse_intermixed_args(argv[1:])
    out: Callable[[str], object] = (lambda _: None) if quiet else print
    if not args.config_uri:
        out("Requires a config file argument")
        return 2
    columns = _SCHEDULE_COLUMNS if args.schedule else _TASK_COLUMNS
    chosen = [name.strip() for name in args.format.split(",")] if args.format else None
    if invalid := set(chosen or ()).difference(columns):
        parser.error(f"no column {', '.join(sorted(invalid))} in {', '.join(columns)}")
    try:
        variables = parse_vars(args.config_vars)
    except ValueError as error:
        parser.error(str(error))
    if args.check and (args.glob or args.format):
        parser.error("--glob and --format do not go with --check")
    for option in ("ignore", "connect"):
        if getattr(args, option) and not args.check:
            parser.error(f"--{option} goes with --check")
    variables.setdefault("__script__", "ptasks")
    if args.check:
        return _check(args, variables, out)
    try:
        app = open_app(args.config_uri, variables=variables)
        app.loader.import_default_modules()
        _list(app, args, chosen or columns, out)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 the application's own, of any kind
        print(f"Error: {explain(error, args.config_uri)}", file=sys.stderr)  # noqa: T201 as celery
        return 1
    return 0


def _list(
    app: Celery,
    args: argparse.Namespace,
    columns: Sequence[str],
    out: Callable[[str], object],
) -> None:
    rows = list_schedule(app) if args.schedule else list_tasks(app)
    keys = ("name", "task" if args.schedule else "function")
    if args.glob:
        rows = [
            row for row in rows if any(fnmatch(row[key], args.glob) for key in keys)
        ]
    if args.json:
        out(json.dumps(rows, indent=2, default=describe))
    elif rows:
        print_table(rows, columns, out)


def _check(
    args: argparse.Namespace, variables: dict[str, str], out: Callable[[str], object]
) -> int:
    answers: list[Answer] = []

    def ask(app: Celery) -> None:
        answers.extend(connect(app))

    then = ask if args.connect else None
    problems = find_problems(args.config_uri, variables, args.ignore, then)
    count = len(problems) + sum(not answer["ok"] for answer in answers)
    if args.json:
        found = {"problems": problems, "servers": answers} if args.connect else problems
        out(json.dumps(found, indent=2))
    else:
        for problem in problems:
            out(": ".join(filter(None, (problem["where"], problem["message"]))))
        for answer in answers:
            out(f"{answer['server']} {answer['message']}")
        if args.connect and not answers:
            out("No server was asked: mend the settings first.")
        total = f"{count} problem{'s' if count > 1 else ''}" if count else "No problems"
        out(f"{total} found.")
    return 1 if count else 0
