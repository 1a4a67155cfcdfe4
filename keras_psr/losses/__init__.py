"""What a network is fitted to."""
