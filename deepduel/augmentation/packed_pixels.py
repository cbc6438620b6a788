"""The pixels of a batch as one number each, and the next image on its way into the cache.

On a CPU a rotated image is read in lines of memory far from each other, and each is waited for. A processor
reads ahead only what is read in order. So while an image is sampled, the next one is read in order beside it:
each output pixel adds the highest byte of one of its numbers, which is zero. Images of 200x200 pixels take
two thirds of the processor time.
"""

import tensorflow as tf

_LEAST_PIXELS = 4096  # of an image: smaller ones do not repay the packing
_MOST_STEP = 4  # pixels from one that is read ahead to the next: beyond it, much would be packed for nothing
_BEHIND = 16  # zeros behind each image: without any, XLA would pack each pixel anew wherever it is sampled


class PackedPixels:
    """uint8 [B, H, W, 3] as int32, red in the lowest byte, zero in the highest."""

    def __init__(self, images: tf.Tensor, size: tuple[int, int]) -> None:
        """Packs images that are sampled to `size`, the (height, width) of the output in pixels."""
        batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
        self._width, self._size = width, size
        self._step = _step(images, size)
        used = max(height * width, self._step * size[0] * size[1])
        pixels = tf.bitcast(tf.pad(images, [[0, 0], [0, 0], [0, 0], [0, 1]]), tf.int32)
        pixels = tf.reshape(pixels, [batch, height * width])
        # Zeros behind each image that has fewer pixels than the output, and one image of zeros at the end.
        self._numbers = tf.pad(pixels, [[0, 1], [0, used - height * width + _BEHIND]])

    @staticmethod
    def pays(images: tf.Tensor, size: tuple[int, int]) -> bool:
        """Whether the images are RGB in bytes, and of a size that makes packing them worth it."""
        height, width, channels = images.shape[1:]
        fit = height * width >= _LEAST_PIXELS and _step(images, size) <= _MOST_STEP
        return images.dtype == tf.uint8 and channels == 3 and fit

    def at(self, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        """The pixels at int32 [B, h, w]: float32 [B, h, w, 3]."""
        # An index for each channel, since XLA does not fuse a gather with what repeats its result.
        batch, (h, w) = tf.shape(row)[0], self._size
        index = tf.broadcast_to((row * self._width + column)[..., None], [batch, h, w, 3])
        numbers = tf.gather(self._numbers[:-1], tf.reshape(index, [batch, h * w * 3]), batch_dims=1)
        numbers = tf.reshape(numbers, [batch, h, w, 3])
        channels = tf.bitwise.right_shift(numbers, tf.constant([0, 8, 16], tf.int32))
        return tf.cast(tf.bitwise.bitwise_and(channels, 255), tf.float32)

    def fetch_next(self, sampled: tf.Tensor) -> tf.Tensor:
        """`sampled`, float32 [B, h, w, 3], while the next image of each is read."""
        h, w = self._size
        ahead = self._numbers[1:, : self._step * h * w : self._step]
        zeros = tf.bitwise.right_shift(tf.reshape(ahead, [-1, h, w, 1]), 24)
        return sampled + tf.cast(zeros, tf.float32)


def _step(images: tf.Tensor, size: tuple[int, int]) -> int:
    return -(-images.shape[1] * images.shape[2] // (size[0] * size[1]))
