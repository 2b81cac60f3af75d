"""``consul-tgw completion``: names of commands, options and, from the running gateway, of services and callers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "consul-tgw"
VARIABLE = "_CONSUL_TGW_COMPLETE"
# zsh calls the file as a function each time. Click's script completes only while it is loaded, so that in each session
# the second Tab would do nothing.
_WHILE_LOADING = "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then"
_WHENEVER_CALLED = f"if [[ $funcstack[1] == _{PROGRAM} ]]; then"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, and the services of the running gateway.

    \b
    consul-tgw completion bash > ~/.local/share/bash-completion/completions/consul-tgw
    consul-tgw completion zsh > ~/.local/share/zsh/site-functions/_consul-tgw
    consul-tgw completion fish > ~/.config/fish/completions/consul-tgw.fish
    """
    from plugin.cli import commands

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(commands, {}, PROGRAM, VARIABLE).source().replace(_WHILE_LOADING, _WHENEVER_CALLED))
