"""From sources of photographs to training samples."""
