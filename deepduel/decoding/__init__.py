"""A record to uint8 pixels; no TensorFlow but in `image_graph`."""
