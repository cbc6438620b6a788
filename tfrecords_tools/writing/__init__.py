"""A list of images to published shards."""
