"""From a fitted network to the files that other runtimes read."""
