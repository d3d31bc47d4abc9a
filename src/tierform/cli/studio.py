"""``tierform studio [FILES or FOLDER]``: results in a browser, or as one file that opens offline."""

from __future__ import annotations

from pathlib import Path

import click

from tierform.cli.output import InputPath, OutputFile, console, one_thread
from tierform.errors import TierformError, fail


@click.command("studio")
@click.argument("paths", nargs=-1, type=InputPath())
@click.option("--export", type=OutputFile(), help="Write one file that opens offline, and start no server.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port.  [default: one that is free]")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def command(paths: tuple[Path, ...], export: Path | None, port: int, no_browser: bool) -> None:
    """Show results in a browser: what `tierform simulate ... --json FILE` wrote, or a folder of such files.

    What `compare`, `serve` and `validate` wrote with --json is shown, too, and the study file of `explore`.

    The server listens on this machine only (127.0.0.1) and answers only to the address that it prints.
    """
    one_thread()
    from tierform.studio.content import open_paths

    opened = open_paths(paths)
    if export:
        from tierform.studio.export import write_opened

        if opened.problems:
            raise TierformError(opened.problems)
        if not (opened.runs or opened.ledger or opened.services or opened.studies):
            fail("there is no result to show", fix="Name a file that `tierform simulate ... --json FILE` wrote.")
        write_opened(export, opened)
        console().print(f"pages: {export}", highlight=False, markup=False, soft_wrap=True)
        return
    named = [path for path in paths if not path.is_dir()]
    nothing = not (opened.runs or opened.services or opened.studies or opened.ledger)
    if opened.problems and named and nothing:
        raise TierformError(opened.problems)
    from tierform.studio.serve import serve

    serve(opened, paths, port=port, browser=not no_browser)
