"""The options that several commands share, so that they read the same everywhere.

Must not hold an option that only one command has.
"""

import click

json_wanted = click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
limit = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="At most so many; 0: all.",
)
