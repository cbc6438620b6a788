"""A batch to loss, gradients and update."""
