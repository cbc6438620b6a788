"""Batches on their way to a GPU: copied by tf.data's threads while the GPU computes the steps before.

    batches of the reading, on the host --to_device--> the same batches in the GPU's memory, AHEAD of the step

Images travel as uint8, once; the micro-batches are slices on the GPU. Of TensorFlow's two ways,
`prefetch_to_device` has been found to leave the batches on the host (tensorflow#43905), so the copy and the
prefetch are stated one by one.
"""

import tensorflow as tf

AHEAD = 2  # batches: one that is there, one that is being copied


def to_device(batches: tf.data.Dataset, device: str | None) -> tf.data.Dataset:
    """The batches in the memory of a device.

    Args:
      batches: a data set on the host.
      device: name of the device; None for the batches as they are.
    """
    if device is None:
        return batches
    copied = batches.apply(tf.data.experimental.copy_to_device(device))
    with tf.device(device):  # else the prefetch, and with it the batches, would be on the host
        return copied.prefetch(AHEAD)
