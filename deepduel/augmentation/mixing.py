"""MixUp and CutMix: each image of a batch is mixed with another one of it, and so are their labels.

    seeds int32 [B, 2] --plan--> partner, share, box [B] --mix_images--> pixels

After the augmentation, on the device. Who is mixed with whom, and how, is a function of the seeds of
the images in the batch: not of their places in it, and not of the micro-batches it is cut into. keras-cv's
MixUp and CutMix do the same to a whole batch, with random numbers that cannot be repeated.

A mixed image has two labels, its own with weight `share` and its partner's with the rest. Their
weighted cross-entropies add up to that of the soft label, so labels stay whole numbers.
"""

import functools
from typing import NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from deepduel.augmentation.draws import FAMILIES, uniforms
from deepduel.augmentation.mixing_options import Mixing

# Which uniform serves what; numbers are never reused.
_STREAMS = {
    "partner": 0,
    "kind": 1,
    "share": 2,
    "row": 3,
    "column": 4,
    "partner_low": 5,
}
_QUANTILES = 4096


class Mix(NamedTuple):
    """What happens to each image of a batch; all [B].

    Attributes:
      partner: int32, the place in the batch of the image it is mixed with; its own where it is not.
      share: float32 0..1, of the image's own label; 1 where it is not mixed.
      keep: float32 0..1, of the image's own pixels outside the box.
      box: int32 [B, 4], top, bottom, left, right of what the partner covers; bottom and right excluded.
    """

    partner: tf.Tensor
    share: tf.Tensor
    keep: tf.Tensor
    box: tf.Tensor


def plan(mixing: Mixing, size: int, seeds: tf.Tensor, *, weight: tf.Tensor | None = None) -> Mix:
    """Draws partners and shares for a whole batch.

    Args:
      size: side of the images in pixels, for the boxes.
      seeds: int32 [B, 2], one pair per image.
      weight: float [B]; images of weight 0 are left alone and are nobody's partner. None: all count.
    """
    drawn = uniforms(seeds, len(_STREAMS), family=FAMILIES["mixing"])
    uniform = {name: tf.cast(drawn[:, stream], tf.float64) for name, stream in _STREAMS.items()}
    partner = _partners(uniform["partner"] + uniform["partner_low"] * 2.0**-24, weight)
    cut = tf.fill([tf.shape(seeds)[0]], bool(mixing.cutmix_alpha))
    if mixing.mixup_alpha:
        cut &= uniform["kind"] < 0.5
    mixup, cutmix = (
        _beta(alpha, uniform["share"]) if alpha else tf.ones_like(uniform["share"])
        for alpha in (mixing.mixup_alpha, mixing.cutmix_alpha)
    )
    box, uncovered = _box(tf.where(cut, cutmix, 1.0), uniform["row"], uniform["column"], size)
    mixed = tf.not_equal(partner, tf.range(tf.shape(partner)[0]))
    keep = tf.where(mixed & ~cut, mixup, 1.0)
    share = tf.where(mixed, tf.where(cut, uncovered, mixup), 1.0)
    return Mix(partner, tf.cast(share, tf.float32), tf.cast(keep, tf.float32), box)


def mix_images(images: tf.Tensor, partners: tf.Tensor, keep: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """float32 [B, S, S, C], twice, and `Mix`'s keep and box -> float32 [B, S, S, C]."""
    rows, columns = (tf.range(tf.shape(images)[axis])[None, :] for axis in (1, 2))
    inside = (rows >= box[:, 0:1]) & (rows < box[:, 1:2])
    inside = inside[:, :, None] & ((columns >= box[:, 2:3]) & (columns < box[:, 3:4]))[:, None, :]
    own = tf.where(inside, 0.0, keep[:, None, None])[..., None]
    return images * own + partners * (1 - own)


def mix_labels(labels: tf.Tensor, mix: Mix, classes: int) -> tf.Tensor:
    """int [B] -> soft labels float32 [B, classes], whose rows sum to 1.

    For a loss that takes them, such as keras.losses.CategoricalCrossentropy. A label of -1 has no share: its
    row sums to what is known.
    """
    share = mix.share[:, None]
    own, theirs = (tf.one_hot(part, classes) for part in (labels, tf.gather(labels, mix.partner)))
    return share * own + (1 - share) * theirs


def shares(labels: tf.Tensor, weight: tf.Tensor, mix: Mix | None) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """The labels that an image counts with, each with its weight: (int [B], float32 [B]) once or twice.

    Args:
      labels: int [B], -1 for none, which counts with weight 0: of a mixed image with one unknown label
        only the known one's share counts.
      weight: float32 [B], of the images.
    """
    weight = weight * tf.cast(labels >= 0, tf.float32)
    own = tf.maximum(labels, 0)
    if mix is None:
        return [(own, weight)]
    theirs, their_weight = tf.gather(own, mix.partner), tf.gather(weight, mix.partner)
    return [(own, weight * mix.share), (theirs, their_weight * (1 - mix.share))]


def larger_share(parts: list[tuple[tf.Tensor, tf.Tensor]]) -> tuple[tf.Tensor, tf.Tensor]:
    """The label with the larger known share, for metrics, and the weight of all that is known; [B] each."""
    label, weight = parts[0]
    for other, more in parts[1:]:
        label, weight = tf.where(more > weight, other, label), weight + more
    return label, weight


def _partners(keys: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """Each image's partner is the next one in the order of their keys, the last one's the first."""
    count = tf.shape(keys)[0]
    if weight is None:
        mixed = count
    else:
        keys = tf.where(weight > 0, keys, 2.0)  # above all others
        mixed = tf.reduce_sum(tf.cast(weight > 0, tf.int32))
    order = tf.argsort(keys, stable=True)
    rank = tf.range(count)
    following = tf.where(rank + 1 < mixed, rank + 1, 0)
    partner = tf.gather(order, tf.where(rank < mixed, following, rank))
    return tf.scatter_nd(order[:, None], partner, [count])


def _box(share: tf.Tensor, row: tf.Tensor, column: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A square of (1 - share) of the picture around a random pixel, cut off at the edge; what it leaves."""
    side = tf.floor(tf.sqrt(1 - share) * size)
    edges = []
    for centre in (tf.floor(row * size), tf.floor(column * size)):
        low = tf.math.ceil(centre - side / 2)
        edges += [tf.clip_by_value(edge, 0.0, float(size)) for edge in (low, low + side)]
    covered = (edges[1] - edges[0]) * (edges[3] - edges[2])
    return tf.cast(tf.stack(edges, axis=1), tf.int32), 1 - covered / size**2


def _beta(alpha: float, uniform: tf.Tensor) -> tf.Tensor:
    """Uniform -> Beta(alpha, alpha), by its quantiles, linear between them."""
    at = uniform * _QUANTILES
    cell = tf.floor(at)
    table = tf.constant(_quantiles(alpha), tf.float64)
    index = tf.cast(cell, tf.int32)
    low, high = tf.gather(table, index), tf.gather(table, index + 1)
    return low + (high - low) * (at - cell)


@functools.lru_cache(maxsize=16)
def _quantiles(alpha: float) -> np.ndarray:
    """The quantiles at the whole multiples of 1 / _QUANTILES."""
    half = scipy.special.betaincinv(alpha, alpha, np.arange(_QUANTILES // 2 + 1) / _QUANTILES)
    return np.concatenate([half, 1 - half[-2::-1]])  # symmetric, and more exact near 0 than near 1
