"""The command line: one module for each command, one entry point.

``main`` turns every error into one sentence and an exit code; commands only raise. A command's module is imported when
the command is asked for: a gateway that starts does not wait for what the others need.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys

import click

from plugin.errors import GatewayError
from plugin.version import version_text
from proxy import logs

EXIT_ERROR = 2
_NAMES = (
    *("run", "reload", "dev", "link", "unlink", "status"),
    *("check", "acl-policy", "snapshot", "refresh", "version"),
    *("connections", "events", "top", "certs", "config"),
    *("completion", "man", "support-bundle"),
    *("explain", "simulate", "probe"),
)
"""Each is a function of the module of its name, with ``_`` for ``-``."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_NAMES)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _NAMES and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], _NAMES, 1)
            meant = f"; did you mean {close[0]}?" if close else f"; the commands are {', '.join(sorted(_NAMES))}"
            raise click.UsageError(f"there is no command {args[0]}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _NAMES:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"plugin.cli.{name}"), name)
        return command


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"consul-tgw {version_text()}")
        context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Consul is found like Consul's own tools find it: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN[_FILE], CONSUL_CACERT,"
    " CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE, CONSUL_PARTITION.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def commands() -> None:
    """A terminating gateway for Consul: carries mesh traffic to services outside the mesh.

    \b
    Start one:               consul-tgw run --service my-gateway --address 10.0.0.5:8443
    Bring a service in:      consul-tgw link billing-db 10.0.0.9:5432 --allow web --gateway my-gateway
    See what is missing:     consul-tgw check --service my-gateway
    See what it does:        consul-tgw status
    """


def main() -> None:
    """Entry point of ``consul-tgw``."""
    try:
        code = commands.main(prog_name="consul-tgw", complete_var="_CONSUL_TGW_COMPLETE", standalone_mode=False)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except GatewayError as error:
        logs.flush()
        click.echo(f"consul-tgw: {error}", err=True)
        code = EXIT_ERROR
    except BrokenPipeError:
        # `consul-tgw status | head`: nobody reads any more. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
