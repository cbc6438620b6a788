"""TFRecord shards to trained image classifiers.

order      (seed, epoch, step) -> record numbers
pipeline   record numbers -> uint8 batches (tf.data)
augment    uint8 batches -> augmented float batches, on the device
models     backbones, heads, saved models
training   the training step and the run
train, evaluate, predict: the commands
"""

__version__ = "0.1.0"
