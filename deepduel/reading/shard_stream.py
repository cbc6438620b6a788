"""Shards as one stream of (record number, encoded image, labels), from any place in it on.

TensorFlow's own operations only: the graph may run in a tf.data service worker, on any file system
that TensorFlow knows.

Shards are read in groups, those of a group side by side, `_BLOCK` records from each in turn. The place of
a record in the stream therefore follows from the shards' counts, and reading begins anywhere at
the cost of one block per shard: groups before the place are not opened, the shards of its own group
are entered at a known record.

Images and labels are found by the shard's table, for a block of records at a time: parsing each Example
takes longer. A record whose checksum does not fit has an empty image in the stream; those behind it are
read all the same. A shard that is missing or has another size than in the manifest is an error.
"""

import numpy as np
import tensorflow as tf

from deepduel.decoding.split import Split
from tfrecords_tools.format import records as record_format

_BLOCK = 16  # records
_HEAD = 1021  # bytes that are read to see that a shard is complete; a prime


class ShardStream:
    """The shards of a split."""

    def __init__(self, split: Split):
        counts = np.array([shard.records for shard in split.shards], np.int64)
        self._paths = [split.path(number) for number in range(len(split.shards))]
        self._counts = counts
        self._firsts = np.cumsum(counts) - counts
        self._bytes = np.array([shard.bytes for shard in split.shards], np.int64)
        self._axes = len(split.manifest.axes)
        self._row = record_format.table_dtype(self._axes).itemsize

    def records(self, shards: tf.Tensor, start: tf.Tensor | int, *, side_by_side: int) -> tf.data.Dataset:
        """The stream of `shards` (numbers, int64 [S], each once), from its record `start` on.

        Each element: its number in the split, int64; the encoded image, string; its labels, int32 [axes].
        """
        groups = -(-len(self._counts) // side_by_side)
        missing = groups * side_by_side - len(self._counts)
        shards = tf.reshape(tf.pad(shards, [[0, missing]], constant_values=-1), (groups, side_by_side))
        counts = tf.where(
            shards < 0, np.int64(0), tf.gather(tf.constant(self._counts), tf.maximum(shards, 0))
        )
        group, begun, over = _place(counts, tf.cast(start, tf.int64))
        begins = tf.concat([begun[None], tf.zeros_like(shards[group + 1 :])], 0)
        left = (shards[group:] >= 0) & (begins < counts[group:])

        def read(shards: tf.Tensor, begins: tf.Tensor, left: tf.Tensor) -> tf.data.Dataset:
            members = tf.boolean_mask(shards, left), tf.boolean_mask(begins, left)
            blocks = tf.data.Dataset.from_tensor_slices(members).interleave(
                self._blocks,
                cycle_length=side_by_side,
                block_length=1,
                num_parallel_calls=side_by_side,  # a thread each: distant storage answers late
                deterministic=True,
            )
            return blocks.unbatch()

        rest = tf.data.Dataset.from_tensor_slices((shards[group:], begins, left))
        return rest.flat_map(read).skip(over)

    def key(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """(path of its shard, number in the shard, key or b"unreadable", whether its checksum fits)."""
        ends = tf.constant(self._firsts + self._counts)
        shard = tf.searchsorted(ends, [number], side="right", out_type=tf.int64)[0]
        path, size = tf.gather(self._paths, shard), tf.gather(tf.constant(self._bytes), shard)
        within = number - tf.gather(tf.constant(self._firsts), shard)
        offset, length = tf.unstack(self._table(path, shard)[0][within, :2], 2)
        framing = record_format.LENGTH_BYTES, record_format.FOOTER_BYTES
        payload = _bytes(path, offset + framing[0], length - sum(framing), size).get_single_element()
        feature = {"key": tf.io.FixedLenFeature([], tf.string)}
        keys = tf.data.Dataset.from_tensors(payload).map(
            lambda example: tf.io.parse_single_example(example, feature)["key"]
        )
        nothing = tf.data.Dataset.from_tensors(b"unreadable")
        key = keys.ignore_errors().concatenate(nothing).take(1).get_single_element()
        return path, within, key, tf.size(_read(path, offset, size, 1)) > 0

    def _blocks(self, shard: tf.Tensor, begin: tf.Tensor) -> tf.data.Dataset:
        """(numbers [n], images [n], labels [n, axes]) of a shard from record `begin` on, n <= `_BLOCK`."""
        path, size = tf.gather(self._paths, shard), tf.gather(tf.constant(self._bytes), shard)
        first, count = (tf.gather(tf.constant(all_), shard) for all_ in (self._firsts, self._counts))
        places, all_labels = self._table(path, shard)

        def complete(at: tf.Tensor, examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            rows = tf.range(at, tf.minimum(at + _BLOCK, count))
            block, labels = tf.gather(places, rows), tf.gather(all_labels, rows)
            examples = tf.cond(
                tf.size(examples) == tf.size(rows), lambda: examples, lambda: damaged(block[:, 0])
            )
            images = _images(tf.ensure_shape(examples, (None,)), block)
            return first + rows, images, labels

        def damaged(offsets: tf.Tensor) -> tf.Tensor:
            """The block anew from its own place on, and if that ends early too, record by record."""
            count = tf.size(offsets, tf.int64)
            again = _read(path, offsets[0], size, count)

            def one_by_one() -> tf.Tensor:
                return tf.map_fn(
                    lambda offset: tf.strings.reduce_join(_read(path, offset, size, 1)),
                    offsets,
                    fn_output_signature=tf.string,
                )

            return tf.cond(tf.size(again, tf.int64) == count, lambda: again, one_by_one)

        stream = _checked(path, places[begin, 0], size).batch(_BLOCK)
        ended = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string)).repeat()
        starts = tf.data.Dataset.range(begin, count, _BLOCK)
        return tf.data.Dataset.zip(starts, stream.concatenate(ended)).map(complete)

    def _table(self, path: tf.Tensor, shard: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A shard's table: (offset, size, image_offset, image_size) int64 [N, 4], and labels int32 [N, axes].

        Its rows are read as whole numbers of four bytes, the first four columns as pairs of them.
        """
        words = self._row // 4
        length = tf.gather(tf.constant(self._counts * self._row), shard)  # of the rows, behind the header
        rows = tf.io.decode_raw(tf.strings.substr(tf.io.read_file(path + ".npy"), -length, length), tf.int32)
        rows = tf.reshape(rows, (-1, words))
        places = tf.bitcast(tf.reshape(rows[:, :8], (-1, 4, 2)), tf.int64)
        return places, rows[:, words - self._axes :]


def _images(examples: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """The encoded images within Examples, by their rows of the table; empty where an Example is."""
    offsets, _, starts, sizes = tf.unstack(places, 4, axis=1)
    starts = tf.minimum(
        starts - offsets - record_format.LENGTH_BYTES, tf.cast(tf.strings.length(examples), tf.int64)
    )
    return tf.strings.substr(examples, starts, sizes)


def _place(counts: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds record `start` of the stream.

    Returns:
      Its group; how many records of each of the group's shards come before its round, [side by side]; and how
      many records of that round come before it.

    Args:
      counts: records of the shards in the order of reading, int64 [groups, side by side].
    """
    totals = tf.reduce_sum(counts, 1)
    ends = tf.cumsum(totals)
    group = tf.searchsorted(ends, [start], side="right", out_type=tf.int64)[0]
    group = tf.minimum(group, tf.size(ends, tf.int64) - 1)
    own, within = counts[group], start - (ends[group] - totals[group])
    rounds = tf.range(tf.reduce_max(own) // _BLOCK + 2)
    before = tf.reduce_sum(tf.minimum(own, rounds[:, None] * _BLOCK), 1)  # records, of each round
    full = tf.searchsorted(before, [within], side="right", out_type=tf.int64)[0] - 1
    return group, tf.minimum(own, full * _BLOCK), within - before[full]


def _checked(path: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
    """Examples of a shard from a byte on, up to the first whose checksum does not fit.

    `ignore_errors` asks a file that cannot be opened again and again, for ever; hence a read that
    fails is made first (TensorFlow 2.21, tf_record_dataset_op.cc: no file index moves on there).
    """
    head = tf.minimum(size, _HEAD)

    def read(_: tf.Tensor) -> tf.data.Dataset:
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=[path], compression_type="", buffer_size=1 << 20, byte_offsets=[offset]
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).ignore_errors()

    return _bytes(path, tf.zeros_like(size), head, size).flat_map(read)


def _read(path: tf.Tensor, offset: tf.Tensor, size: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Up to `count` Examples from a byte on, [n]."""
    none = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string))
    examples = _checked(path, offset, size).take(count).batch(count)
    return examples.concatenate(none).take(1).get_single_element()


def _bytes(path: tf.Tensor, start: tf.Tensor, length: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
    """One element: bytes of a file that must be `size` bytes long."""
    return tf.data.FixedLengthRecordDataset(
        path,
        length,
        header_bytes=start,
        footer_bytes=size - start - length,
        buffer_size=tf.minimum(length, 1 << 18),
    )
