"""The command line: one module for each command, one entry point.

``main`` turns every error into one sentence and an exit code; commands only raise. Further commands are added to
:data:`commands` with ``commands.add_command``.
"""

from __future__ import annotations

import os
import sys

import click

from plugin.cli.acl_policy import acl_policy
from plugin.cli.check import check
from plugin.cli.dev import dev
from plugin.cli.link import link
from plugin.cli.refresh import refresh
from plugin.cli.reload import reload
from plugin.cli.run import run
from plugin.cli.snapshot import snapshot
from plugin.cli.status import status
from plugin.cli.unlink import unlink
from plugin.cli.version import version
from plugin.errors import GatewayError
from plugin.version import version_text
from proxy import logs

EXIT_ERROR = 2


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Consul is found like Consul's own tools find it: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN[_FILE], CONSUL_CACERT,"
    " CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE, CONSUL_PARTITION.",
)
@click.version_option(version_text(), message="consul-tgw %(version)s")
def commands() -> None:
    """A terminating gateway for Consul: carries mesh traffic to services outside the mesh.

    \b
    Start one:               consul-tgw run --service my-gateway --address 10.0.0.5:8443
    Bring a service in:      consul-tgw link billing-db 10.0.0.9:5432 --allow web --gateway my-gateway
    See what is missing:     consul-tgw check --service my-gateway
    See what it does:        consul-tgw status
    """


for command in (run, reload, dev, link, unlink, status, check, acl_policy, snapshot, refresh, version):
    commands.add_command(command)


def main() -> None:
    """Entry point of ``consul-tgw``."""
    try:
        code = commands.main(standalone_mode=False)
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
