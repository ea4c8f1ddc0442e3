"""Commands that are imported when they run, so that `reprise --help` does not wait for gRPC.

Owns how a command is named before its module is loaded. Must not import any command.
"""

from collections.abc import Sequence
from importlib import import_module

import click


class LazyCommand(click.Command):
    """A command known by its name, its one line of help and its `module:attribute`, until someone runs it."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name, help=summary, short_help=summary)
        self.target = target

    def load(self) -> click.Command:
        """The real command. Raises ImportError or TypeError where `target` names none."""
        module, _, attribute = self.target.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is no command")
        return command


class LazyGroup(click.Group):
    """A group of LazyCommands, listed by section in the order given."""

    def __init__(self, *, sections: dict[str, Sequence[LazyCommand]], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.sections = sections
        for command in (command for section in sections.values() for command in section):
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the sections."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but with the real command in the place of the lazy one."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one list per section, with the names of all sections aligned."""
        widest = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (command.name.ljust(widest), command.get_short_help_str(80))
                        for command in commands
                        if command.name
                    ]
                )
