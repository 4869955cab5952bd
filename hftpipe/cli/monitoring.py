"""`hftpipe monitoring`."""

import click

_FILES = {"grafana": "grafana.json", "alerts": "alerts.yml"}


@click.command(short_help="A dashboard for Grafana, and alert rules for Prometheus.")
@click.argument("what", type=click.Choice(list(_FILES)))
def monitoring(what: str) -> None:
    """Print the dashboard or the alert rules that come with hftpipe; both use its metrics.

    Prometheus has those from `hftpipe serve` (/metrics) and from workers and validators (--metrics).

    \b
    Examples:
      hftpipe monitoring grafana > hftpipe-dashboard.json
      hftpipe monitoring alerts > /etc/prometheus/rules/hftpipe.yml
    """
    from importlib.resources import files

    click.echo(files("hftpipe.telemetry").joinpath(_FILES[what]).read_text(encoding="utf-8"), nl=False)
