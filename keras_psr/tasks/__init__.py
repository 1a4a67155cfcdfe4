"""What can be fitted: settings, and what belongs to each task."""
