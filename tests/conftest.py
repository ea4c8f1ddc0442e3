"""Fixtures for every test; what they do stands in the modules named here."""

pytest_plugins = ["tests.fixtures_database", "tests.fixtures_broker"]
