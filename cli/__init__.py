"""The command line: `main.py` finds the commands, each of which has a module of its own name."""
