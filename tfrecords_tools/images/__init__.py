"""What a valid image is, and how it is stored."""
