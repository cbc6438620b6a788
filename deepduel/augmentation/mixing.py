"""MixUp and CutMix: mixes each image of a batch with another one, and their labels likewise.

    seeds int32 [B, 2] --plan--> partner, share, keep, box [B] --mix_images--> float32 [B, S, S, C]

Runs on the device, after the augmentation. Partners and shares are a function of the seeds of the images in
the batch, independent of the images' positions and of micro-batches. keras-cv's MixUp and CutMix do the same
with random numbers that cannot be repeated.

A mixed image has two labels: its own with weight `share`, and its partner's with weight 1 - share. Their
weighted cross-entropies add up to that of the soft label, so that labels can stay integers.
"""

import functools
from typing import NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from deepduel.augmentation.draws import FAMILIES, uniforms
from deepduel.augmentation.mixing_options import Mixing

# {random number: which uniform of the image's it is}; numbers are never reused.
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
    """How each image of a batch is mixed.

    Attributes:
      partner: int32 [B], position in the batch of the image it is mixed with; its own if it is not mixed.
      share: float32 [B] 0..1, weight of the image's own label; 1 if it is not mixed.
      keep: float32 [B] 0..1, weight of the image's own pixels outside the box.
      box: int32 [B, 4], top, bottom, left and right of the rectangle that the partner covers, in pixels;
        bottom and right are excluded.
    """

    partner: tf.Tensor
    share: tf.Tensor
    keep: tf.Tensor
    box: tf.Tensor


def plan(mixing: Mixing, size: int, seeds: tf.Tensor, *, weight: tf.Tensor | None = None) -> Mix:
    """Draws partners and shares for a whole batch.

    Args:
      mixing: the distributions.
      size: side of the images in pixels.
      seeds: int32 [B, 2], one pair per image.
      weight: float [B]; images of weight 0 are not mixed with any other. None mixes all.

    Example:
      >>> seeds = tf.stack([tf.zeros(8, tf.int32), tf.range(8)], axis=1)
      >>> plan(Mixing(cutmix_alpha=1.0), 32, seeds).box.shape
      TensorShape([8, 4])
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


@functools.partial(tf.function, jit_compile=True, autograph=False, reduce_retracing=True)
def take(rows: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """The rows [b, …] at `places` int32 [b] of [B, …], as `tf.gather`.

    Compiled by XLA, because TensorFlow gathers uint8 on the host alone, and would fetch the entire batch from
    a GPU.
    """
    return tf.gather(rows, places)


def mix_images(images: tf.Tensor, partners: tf.Tensor, keep: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Mixes images with their partners.

    Args:
      images: float32 [B, S, S, C].
      partners: float32 [B, S, S, C], the partner of each image: `take(images, mix.partner)`.
      keep: `Mix.keep`.
      box: `Mix.box`.

    Returns:
      float32 [B, S, S, C].
    """
    rows, columns = (tf.range(tf.shape(images)[axis])[None, :] for axis in (1, 2))
    inside = (rows >= box[:, 0:1]) & (rows < box[:, 1:2])
    inside = inside[:, :, None] & ((columns >= box[:, 2:3]) & (columns < box[:, 3:4]))[:, None, :]
    own = tf.where(inside, 0.0, keep[:, None, None])[..., None]
    return images * own + partners * (1 - own)


def mix_labels(labels: tf.Tensor, mix: Mix, classes: int) -> tf.Tensor:
    """Soft labels of mixed images, for losses such as keras.losses.CategoricalCrossentropy.

    Args:
      labels: int [B] from 0, or -1 for an unknown label.
      mix: the plan of the batch.
      classes: number of classes.

    Returns:
      float32 [B, classes]. Rows sum to 1, or to the share of the known label if the other is unknown.
    """
    share = mix.share[:, None]
    own, theirs = (tf.one_hot(part, classes) for part in (labels, tf.gather(labels, mix.partner)))
    return share * own + (1 - share) * theirs


def shares(labels: tf.Tensor, weight: tf.Tensor, mix: Mix | None) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """The labels of each image with their weights: a list of one or two (int [B], float32 [B]).

    Args:
      labels: int [B] from 0, or -1 for an unknown label, which gets weight 0: of a mixed image with one
        unknown label only the share of the known one counts.
      weight: float32 [B], weights of the images.
      mix: the plan of the batch; None if it is not mixed.
    """
    weight = weight * tf.cast(labels >= 0, tf.float32)
    own = tf.maximum(labels, 0)
    if mix is None:
        return [(own, weight)]
    theirs, their_weight = tf.gather(own, mix.partner), tf.gather(weight, mix.partner)
    return [(own, weight * mix.share), (theirs, their_weight * (1 - mix.share))]


def larger_share(parts: list[tuple[tf.Tensor, tf.Tensor]]) -> tuple[tf.Tensor, tf.Tensor]:
    """For metrics: the known label with the larger share, and the weight of all known labels; [B] each."""
    label, weight = parts[0]
    for other, more in parts[1:]:
        label, weight = tf.where(more > weight, other, label), weight + more
    return label, weight


def _partners(keys: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """The partner of an image is the next one in the order of the keys, and the first one for the last."""
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
    """A square of the area 1 - share around a random pixel, clipped to the image; and the share left over."""
    side = tf.floor(tf.sqrt(1 - share) * size)
    edges = []
    for centre in (tf.floor(row * size), tf.floor(column * size)):
        low = tf.math.ceil(centre - side / 2)
        edges += [tf.clip_by_value(edge, 0.0, float(size)) for edge in (low, low + side)]
    covered = (edges[1] - edges[0]) * (edges[3] - edges[2])
    return tf.cast(tf.stack(edges, axis=1), tf.int32), 1 - covered / size**2


def _beta(alpha: float, uniform: tf.Tensor) -> tf.Tensor:
    """Uniform numbers -> Beta(alpha, alpha), by linear interpolation between its quantiles."""
    position = uniform * _QUANTILES
    cell = tf.floor(position)
    table = tf.constant(_quantiles(alpha), tf.float64)
    index = tf.cast(cell, tf.int32)
    low, high = tf.gather(table, index), tf.gather(table, index + 1)
    return low + (high - low) * (position - cell)


@functools.lru_cache(maxsize=16)
def _quantiles(alpha: float) -> np.ndarray:
    """The quantiles of Beta(alpha, alpha) at the multiples of 1 / _QUANTILES."""
    half = scipy.special.betaincinv(alpha, alpha, np.arange(_QUANTILES // 2 + 1) / _QUANTILES)
    return np.concatenate([half, 1 - half[-2::-1]])  # symmetric, and more precise near 0 than near 1
