"""The command line `lightlm`: its commands, exit codes and the two output streams.

Results go to standard output (with --json exactly one object), all else to standard error. Nothing
heavy is imported before a command needs it: --help answers within half a second.
"""

import errno
import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from lightlm.errors import Interrupted, LightLMError, Terminated
from lightlm.first_signal import FirstSignal
from lightlm_flows.cli.commands.backup import backup, restore
from lightlm_flows.cli.commands.bases import bases
from lightlm_flows.cli.commands.doctor import doctor
from lightlm_flows.cli.commands.export import export, push
from lightlm_flows.cli.commands.look import look
from lightlm_flows.cli.commands.report import report
from lightlm_flows.cli.commands.retrain import promote, retrain, rollback
from lightlm_flows.cli.commands.runs import runs
from lightlm_flows.cli.commands.serve import serve
from lightlm_flows.cli.commands.service import (
    deploy,
    down,
    env,
    schedule,
    serve_flows,
    server,
    status,
    up,
)
from lightlm_flows.cli.commands.setup import setup
from lightlm_flows.cli.commands.store import store
from lightlm_flows.cli.commands.studio import studio
from lightlm_flows.cli.commands.sync import sync
from lightlm_flows.cli.commands.tokenize import tokenize
from lightlm_flows.cli.commands.training import calibration, check, plan, train
from lightlm_flows.cli.commands.versions import evaluate, generate, models, ui
from lightlm_flows.cli.commands.watch import watch
from lightlm_flows.cli.signals import end_process

app = typer.Typer(
    name="lightlm",
    help="Trains the best small language model that a given time allows, and registers it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    setup,
    check,
    doctor,
    look,
    tokenize,
    bases,
    plan,
    train,
    watch,
    report,
    retrain,
    calibration,
):
    app.command()(command)
for command in (studio, generate, serve, sync, evaluate, promote, rollback, export, push, ui):
    app.command()(command)
for command in (up, down, status, env, deploy, schedule, serve_flows, server, backup, restore):
    app.command()(command)
app.add_typer(runs, name="runs")
app.add_typer(models, name="models")
app.add_typer(store, name="store")


def show_version(is_asked: bool) -> None:
    """Print the version and end."""
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"lightlm {version('lightlm')}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Trains the best small language model that a given time allows, and registers it."""
    from lightlm.store.home import provide_temporary_folder

    provide_temporary_folder()


USAGE_ERROR: type[typer.BadParameter] = typer.BadParameter.__mro__[1]  # pyright: ignore[reportAssignmentType]
"""Error of an unknown option or command: click's, or of Typer's own copy of click."""


def main() -> None:
    """Run a command; an error of LightLM is one line on standard error and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal of another encoding shows what it lacks as \u2014.
        sys.stdout.reconfigure(errors="backslashreplace")

    first_signal = FirstSignal()
    # A command removes what it has half written.
    first_signal.listen("SIGTERM", "SIGHUP", unless_handled=True)
    try:
        code = app(prog_name="lightlm", standalone_mode=not sys.argv[1:])
    except LightLMError as error:
        fail(str(error), error.exit_code)
    except USAGE_ERROR as error:
        # An option without its value is refused before the parser knows its command.
        typed = [word for word in sys.argv[1:2] if not word.startswith("-")]
        command = error.ctx.command_path if error.ctx else " ".join(["lightlm", *typed])
        fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped", stopped_by(first_signal).exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        fail(
            f"cannot write what was asked for ({error.strerror}); make room, or write it elsewhere",
            1,
        )
    else:
        if code == Interrupted.exit_code:  # Typer makes this of Ctrl-C
            fail("stopped", stopped_by(first_signal).exit_code)
        end_process(int(code or 0))


def stopped_by(first: FirstSignal) -> type[Interrupted]:
    """Return the error of a command that a signal, or Ctrl-C, ended."""
    return Interrupted if first.number is None else Terminated


def fail(message: str, exit_code: int) -> NoReturn:
    """End the process with one line on standard error, without secrets."""
    from lightlm.console.escape import escape_for_terminal
    from lightlm.redaction import redact

    sys.stderr.write(f"lightlm: {escape_for_terminal(redact(' '.join(message.splitlines())))}\n")
    end_process(exit_code)


if __name__ == "__main__":
    main()
