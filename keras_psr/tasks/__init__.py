"""The tasks that networks are fitted to, with their settings."""
