"""What runs in the child process of one attempt.

Imports as little as it can: it is started for every attempt.
"""
