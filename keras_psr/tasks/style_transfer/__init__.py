"""Style transfer."""
