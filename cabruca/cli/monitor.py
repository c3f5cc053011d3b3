"""`cabruca monitor`: the pages of `cabruca/monitor/`, served by Streamlit on this machine alone."""

from __future__ import annotations

from pathlib import Path

import click

from cabruca.cli.serving import HOST, PORT, become, need, refuse_taken

COLOURS = {
    "theme.light.primaryColor": "#2f6b4f",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f2f5f1",
    "theme.light.textColor": "#1d2721",
    "theme.dark.primaryColor": "#6cbf8d",
    "theme.dark.backgroundColor": "#111713",
    "theme.dark.secondaryBackgroundColor": "#1b231e",
    "theme.dark.textColor": "#e6ece8",
}
"""Leaves and bark; the reader's system chooses light or dark, and Settings in the page's menu may overrule it."""

SETTINGS = {
    "server.address": HOST,
    "browser.serverAddress": HOST,
    "server.headless": "true",  # opens no browser, asks for no e-mail address
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "runner.magicEnabled": "false",  # it would show the docstring of a constant on every page
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",
    "server.enableStaticServing": "false",
    "server.maxUploadSize": "1",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "logger.level": "warning",
    "theme.baseRadius": "medium",
}

DEFAULT = "outputs"
"""It need not be there yet: the first run makes it. Another name that is not there is a mistyped one."""

ALLOWED_HOSTS = "STREAMLIT_SERVER_ALLOWED_HOSTS"
"""As a variable and not a flag: a Streamlit that does not know it yet passes over it. Stops DNS rebinding."""


@click.command(short_help="Follow runs and studies in a browser.")
@click.option("--outputs", default=DEFAULT, show_default=True, metavar="DIR", help="Folder with runs and studies.")
@click.option("--port", type=PORT, default=8501, show_default=True, help="Port on 127.0.0.1.")
def monitor(outputs: str, port: int) -> int:
    """Show runs, curves, checkpoints, studies and maps in a browser, live while they train.

    Serves on 127.0.0.1 alone. It changes nothing of a training; it writes tags and notes, and removes checkpoints after
    a question.
    """
    need("monitor", "cabruca monitor", "streamlit", "plotly")
    folder = Path(outputs).absolute()
    if folder.exists() and not folder.is_dir():
        raise click.UsageError(f"--outputs {outputs} is a file; give the folder in which runs are made")
    if not folder.exists() and folder != Path(DEFAULT).absolute():
        raise click.UsageError(
            f"--outputs {outputs} is not there; correct it, make it (mkdir) to wait for its first run, or leave it out "
            f"for ./{DEFAULT}"
        )
    refuse_taken(port)
    from cabruca.monitor.outputs import OUTPUTS

    there = "" if folder.is_dir() else " (not there yet)"
    click.echo(f"monitor of {folder}{there}: http://{HOST}:{port}  (Ctrl-C stops it)")
    return become(streamlit_words(port), {OUTPUTS: str(folder), ALLOWED_HOSTS: f"{HOST} localhost"})


def streamlit_words(port: int) -> list[str]:
    """What Python is called with."""
    import cabruca.monitor

    app = Path(str(cabruca.monitor.__file__)).parent / "app.py"
    flags = [f"--{key}={value}" for key, value in {**SETTINGS, **COLOURS, "server.port": port}.items()]
    return ["-m", "streamlit", "run", str(app), *flags]
