"""`python -m broker.cli`, the same as `reprise`."""

from broker.cli import main

main()
