"""The step types of a playbook, one file each. `standard.py` puts them together."""
