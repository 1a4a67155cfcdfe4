"""The command line: `main.py` finds the commands, each in a module of the same name."""
