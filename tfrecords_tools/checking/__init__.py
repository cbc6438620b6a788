"""Whether a data folder is sound, and which images are duplicates."""
