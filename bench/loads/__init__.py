"""Client processes: each is told one task on its command line, and prints what it measured."""
