"""One training run: its folder, its state and its progress."""
