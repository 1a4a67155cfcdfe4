"""The samples that networks are fitted to, drawn from sources of pictures."""
