"""A folder or table to a list of images with their splits and labels."""
