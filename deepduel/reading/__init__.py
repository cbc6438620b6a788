"""Record numbers to tf.data batches."""
