"""The one command line: `zoo`, which `python -m training` and `python -m evaluation` share.

The commands themselves are in `zoo.commands`. Errors are one line and exit status 2, or 1 where a training stopped.
"""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from zoo.commands import compute, look, publish, search
from zoo.errors import TrainingError, ZooError, nearest
from zoo.text import printable

#: Base of all errors that the parser of the command line raises.
UsageError = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
INTERRUPTED = 130
#: `name='value'` or `name=value` in a message, but not `group.name=value`, which a recipe takes.
PYTHON_ARGUMENT = re.compile(r"(?<![\w.])([a-z_]+)=('[^']*'|[A-Za-z0-9_./:-]+)")
#: Arguments of `open_dataset` that a recipe takes as keys of its group `data`.
DATA_KEYS = ("split", "root", "download", "classes", "labels", "test_share", "skip_bad")
_HOME = Path(__file__).resolve().parents[1]


class ManyNumbers(TyperCommand):
    """`--k 1 5 20` is `--k 1 --k 5 --k 20`: a list of numbers may follow an option, as in stored commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args, ("--k", "--labels")))


class Commands(TyperGroup):
    """Names the nearest command where one is unknown."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            raise ZooError(f"no command {cmd_name!r}; {nearest(cmd_name, list(self.commands))}")
        return found


app = typer.Typer(
    name="zoo",
    cls=Commands,
    help="Self-supervised encoders that load in one line: look, extract, probe, train, publish.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import zoo

        print(f"zoo {zoo.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Self-supervised encoders that load in one line: look, extract, probe, train, publish."""


for _panel, _commands in {
    "Look": {"list": look.list_command, "show": look.show, "env": look.env},
    "Use": {"demo": compute.demo, "extract": compute.extract, "probe": compute.probe},
    "Your pictures": {"look": search.look, "index": search.index, "search": search.search},
    "Make": {"train": compute.train, "plan": compute.plan},
    "Publish and convert": {
        "publish": publish.publish,
        "verify": publish.verify,
        "import": publish.import_command,
        "export": publish.export,
        "mirror": publish.mirror,
        "site": publish.site,
    },
}.items():
    for _name, _function in _commands.items():
        _class = ManyNumbers if _name == "probe" else TyperCommand
        app.command(_name, cls=_class, rich_help_panel=_panel)(_function)


def main(arguments: Sequence[str] | None = None, *, command: str | None = None, program: str = "zoo") -> int:
    """Run a command line.

    Args:
        arguments: None for those of this process.
        command: a subcommand that `arguments` belong to, as `python -m training` has; None where they begin with it.
        program: what usage texts call the program.

    Returns:
        Exit status: 0 done, 1 a check failed or a training stopped, 2 bad input, 130 interrupted. Never raises for
        what a user may have caused.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = typer.main.get_command(app)
    target = parsed if command is None else parsed.commands[command]
    use_own_rooms()
    as_before, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        status = target.main(given or ([] if command else ["--help"]), prog_name=program, standalone_mode=False)
        if status == INTERRUPTED:  # how newer typer ends after Ctrl-C
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: no file is half-written; run the same command again to resume", file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        return _refuse(error.format_message(), target, given)
    except TrainingError as error:
        _refuse(str(error), target, given)
        return 1
    except (ZooError, ImportError) as error:
        return _refuse(str(error), target, given)
    finally:
        warnings.formatwarning = as_before


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning as a person reads it: without the file and the line of code that it came from."""
    return f"warning: {printable(message)}\n"


def parse(command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The values that a subcommand would be called with, by parameter name.

    Raises:
        ZooError: the command line is not valid.
    """
    parsed = typer.main.get_command(app).commands[command]
    try:
        return dict(parsed.make_context(command, list(arguments)).params)
    except UsageError as error:
        raise ZooError(error.format_message()) from None


def _refuse(message: str, target: Any, given: Sequence[str]) -> int:
    called = getattr(target, "commands", {}).get(given[0] if given else None, target)
    print(f"error: {as_options(message, called)}", file=sys.stderr)
    return 2


def as_options(message: str, command: Any) -> str:
    """A message of a function as the command line says it: `split='train'` is `--split train` where the command has it.

    Args:
        command: the parsed subcommand; its own options decide what is replaced.
    """
    options = {p.name.rstrip("_"): p.opts[0] for p in command.params if p.opts[0].startswith("--")}
    flags = {p.name for p in command.params if getattr(p, "is_flag", False)}
    if "labels_file" in options:  # what a dataset calls `labels`; a probe's own --labels are amounts
        options["labels"] = options["labels_file"]
    recipe = any(p.name == "overrides" for p in command.params)
    if recipe:
        options.pop("batch_size", None)  # a recipe's own key, which this command takes as it is

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2].strip("'")
        if recipe and name in DATA_KEYS:
            return f"data.{name}={shlex.quote({'True': 'true', 'False': 'false'}.get(value, value))}"
        if value == "False" and f"no_{name}" in flags:
            return options[f"no_{name}"]
        if name in flags:
            return options[name] if value == "True" else found[0]
        return f"{options[name]} {shlex.quote(value)}" if name in options else found[0]

    said = PYTHON_ARGUMENT.sub(option, message)
    said = re.sub(r"--[a-z-]+ \((data\.[a-z_]+=[^)]*)\)", r"\1", said)  # this command has the key alone
    return re.sub(r"(--[a-z-]+) \(\1\)", r"\1", said)  # a message that says both names one now


def spread(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """`--k 1 5` -> `--k 1 --k 5`, for the options named."""
    made: list[str] = []
    option = None
    for argument in arguments:
        if option is not None and made[-1] != option:  # one value is there already
            if _is_number(argument):
                made.append(option)
            else:
                option = None
        if argument in options:
            option = argument
        made.append(argument)
    return made


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def use_own_rooms() -> None:
    """Make `training` and `evaluation` the packages beside this one.

    A folder of that name in the working directory, which PYTHONPATH may put first, is never run.
    """
    for name in ("training", "evaluation"):
        own, found = PathFinder.find_spec(name, [str(_HOME)]), find_spec(name)
        if own is not None and (found is None or found.origin != own.origin):
            sys.meta_path.insert(0, _Room(name, own))


class _Room:
    """Finds one package where it is known to lie; its modules are then found inside it."""

    def __init__(self, name: str, spec: ModuleSpec) -> None:
        self.name, self.spec = name, spec

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return self.spec if name == self.name else None


if __name__ == "__main__":
    sys.exit(main())
