"""All SQL of the broker: sessions, statements, migrations. Must not decide anything: it stores what it is told."""
