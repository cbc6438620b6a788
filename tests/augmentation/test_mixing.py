import keras_cv
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from deepduel.augmentation import mixing
from deepduel.augmentation.mixing_options import Mixing

pytestmark = pytest.mark.numeric

BOTH = Mixing(mixup_alpha=0.2, cutmix_alpha=1.0)


def seed_pairs(count, start=0):
    return tf.constant(np.random.default_rng(start).integers(-(2**31), 2**31, (count, 2)), tf.int32)


def pictures(count, size, seed=0):
    return tf.constant(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)), tf.float32)


def mixed(images, mix):
    return mixing.mix_images(images, tf.gather(images, mix.partner), mix.keep, mix.box)


# --- partners ----------------------------------------------------------------------------------


def test_every_image_has_one_partner_and_is_the_partner_of_one():
    partner = mixing.plan(BOTH, 32, seed_pairs(500)).partner.numpy()
    assert sorted(partner) == list(range(500))
    assert (partner != np.arange(500)).all()


def test_all_partners_are_equally_likely():
    counts = np.zeros((6, 6))
    partners = tf.function(lambda seeds: mixing.plan(BOTH, 8, seeds).partner)
    for start in range(600):
        counts[np.arange(6), partners(seed_pairs(6, start)).numpy()] += 1
    assert (np.diag(counts) == 0).all()
    off_diagonal = counts[~np.eye(6, dtype=bool)]
    assert scipy.stats.chisquare(off_diagonal).pvalue > 1e-3


@pytest.mark.parametrize("seed", [0, 7])
def test_the_mix_of_an_image_does_not_depend_on_its_position_in_the_batch(seed):
    seeds = seed_pairs(40, seed)
    permutation = np.random.default_rng(seed).permutation(40)
    one, other = mixing.plan(BOTH, 32, seeds), mixing.plan(BOTH, 32, tf.gather(seeds, permutation))
    np.testing.assert_array_equal(permutation[other.partner], one.partner.numpy()[permutation])
    for field in ("share", "keep", "box"):
        np.testing.assert_array_equal(getattr(other, field), getattr(one, field).numpy()[permutation])


def test_eager_graph_and_mapped_plans_are_the_same():
    seeds = seed_pairs(30)
    expected = mixing.plan(BOTH, 32, seeds)
    graph = tf.function(lambda seeds: mixing.plan(BOTH, 32, seeds))(seeds)
    mapped = next(iter(tf.data.Dataset.from_tensors(seeds).map(lambda seeds: mixing.plan(BOTH, 32, seeds))))
    for field in expected._fields:
        np.testing.assert_array_equal(getattr(graph, field), getattr(expected, field))
        np.testing.assert_array_equal(getattr(mapped, field), getattr(expected, field))


def test_images_of_weight_zero_are_not_mixed_with_any_other():
    weight = np.ones(20, np.float32)
    weight[[3, 8, 19]] = 0
    mix = mixing.plan(BOTH, 16, seed_pairs(20), weight=weight)
    partner = mix.partner.numpy()
    assert sorted(partner) == list(range(20))
    np.testing.assert_array_equal(partner[[3, 8, 19]], [3, 8, 19])
    np.testing.assert_array_equal(mix.share.numpy()[[3, 8, 19]], 1)
    assert (partner[weight > 0] != np.arange(20)[weight > 0]).all()


@pytest.mark.parametrize("weights", [[1.0], [0.0, 1.0, 0.0], [0.0, 0.0]])
def test_an_image_without_a_partner_stays_as_it_is(weights):
    images = pictures(len(weights), 8)
    for kind in (Mixing(mixup_alpha=1.0), Mixing(cutmix_alpha=1.0)):
        mix = mixing.plan(kind, 8, seed_pairs(len(weights)), weight=tf.constant(weights))
        np.testing.assert_array_equal(mixed(images, mix), images)
        np.testing.assert_array_equal(mix.share, np.ones(len(weights)))


def test_an_empty_batch_can_be_mixed():
    mix = mixing.plan(BOTH, 8, tf.zeros([0, 2], tf.int32))
    assert mixed(tf.zeros([0, 8, 8, 3]), mix).shape == (0, 8, 8, 3)


# --- shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    share = mixing.plan(Mixing(mixup_alpha=alpha), 8, seed_pairs(4000)).share.numpy()
    points = np.array([0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
    below = (share[:, None] < points).mean(axis=0)
    np.testing.assert_allclose(below, scipy.stats.beta(alpha, alpha).cdf(points), atol=0.03)


def test_with_both_kinds_each_is_used_for_half_of_the_images():
    mix = mixing.plan(BOTH, 64, seed_pairs(4000))
    cut = mix.box.numpy()[:, 1] > mix.box.numpy()[:, 0]
    assert abs(cut.mean() - 0.5) < 0.03
    assert (mix.keep.numpy()[cut] == 1).all()
    assert abs((mix.keep.numpy() < 1).mean() - 0.5) < 0.03


def test_a_cut_images_share_is_the_part_that_is_left_of_it():
    images = tf.zeros([200, 21, 21, 3]) + tf.reshape(tf.range(200.0), [-1, 1, 1, 1])
    mix = mixing.plan(Mixing(cutmix_alpha=1.0), 21, seed_pairs(200))
    own = (mixed(images, mix).numpy()[..., 0] == np.arange(200)[:, None, None]).mean(axis=(1, 2))
    np.testing.assert_allclose(mix.share, own, atol=1e-6)
    assert own.min() < 0.3 and own.max() > 0.95


# --- pixels and labels as keras-cv's -----------------------------------------------------------


def test_mixup_is_keras_cvs_with_the_same_draws(monkeypatch):
    images, labels = pictures(16, 12), tf.one_hot(np.arange(16) % 3, 3)
    mix = mixing.plan(Mixing(mixup_alpha=0.4), 12, seed_pairs(16))
    layer = keras_cv.layers.MixUp(alpha=0.4, dtype="float32")
    monkeypatch.setattr(layer, "_sample_from_beta", lambda *_: mix.share)
    monkeypatch.setattr(tf.random, "shuffle", lambda *_, **__: mix.partner)
    theirs = layer({"images": images, "labels": labels})
    np.testing.assert_allclose(mixed(images, mix), theirs["images"], atol=1e-4)
    ours = mixing.mix_labels(tf.constant(np.arange(16) % 3), mix, 3)
    np.testing.assert_allclose(ours, theirs["labels"], atol=1e-6)


def test_cutmix_cuts_where_keras_cv_cuts(monkeypatch):
    """Its rectangles, by its function for them; the shares differ where one is cut off at the edge."""
    images = pictures(64, 20)
    drawn = {}
    box = mixing._box

    def spy(share, row, column, size):
        drawn.update(share=share, row=row, column=column)
        return box(share, row, column, size)

    monkeypatch.setattr(mixing, "_box", spy)
    mix = mixing.plan(Mixing(cutmix_alpha=1.0), 20, seed_pairs(64))
    centres = iter([tf.cast(tf.floor(drawn[name] * 20), tf.int32) for name in ("row", "column")])
    layer = keras_cv.layers.CutMix(alpha=1.0, dtype="float32")
    monkeypatch.setattr(layer, "_sample_from_beta", lambda *_: tf.cast(drawn["share"], tf.float32))
    monkeypatch.setattr(tf.random, "shuffle", lambda *_, **__: mix.partner)
    monkeypatch.setattr(tf.random, "uniform", lambda **_: next(centres))
    labels = tf.one_hot(np.arange(64) % 3, 3)
    theirs = layer({"images": images, "labels": labels})
    np.testing.assert_array_equal(mixed(images, mix), theirs["images"])
    inside = (mix.box.numpy() > 0).all(axis=1) & (mix.box.numpy() < 20).all(axis=1)
    assert inside.any()
    ours = mixing.mix_labels(tf.constant(np.arange(64) % 3), mix, 3).numpy()
    np.testing.assert_allclose(ours[inside], theirs["labels"].numpy()[inside], atol=1e-6)


def test_two_weighted_labels_are_one_soft_label():
    labels, logits = np.arange(12) % 4, np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    mix = mixing.plan(BOTH, 16, seed_pairs(12))
    parts = mixing.shares(tf.constant(labels), tf.ones(12), mix)
    ours = sum(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits) * w for label, w in parts)
    soft = mixing.mix_labels(tf.constant(labels), mix, 4)
    np.testing.assert_allclose(ours, tf.nn.softmax_cross_entropy_with_logits(soft, logits), atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(soft, axis=1), 1, atol=1e-6)
    larger, weight = mixing.larger_share(parts)
    np.testing.assert_array_equal(larger, tf.argmax(soft, axis=1))
    np.testing.assert_allclose(weight, 1)


def test_an_unknown_label_has_no_share():
    labels = tf.constant([0, -1, 1, -1])
    partner = tf.constant([1, 2, 3, 3])
    mix = mixing.Mix(partner, tf.constant([0.7, 0.4, 1.0, 1.0]), tf.ones(4), tf.zeros([4, 4], tf.int32))
    (own, weight), (theirs, rest) = mixing.shares(labels, tf.ones(4), mix)
    np.testing.assert_allclose(weight, [0.7, 0, 1, 0])
    np.testing.assert_allclose(rest, [0, 0.6, 0, 0])
    assert (own >= 0).numpy().all() and (theirs >= 0).numpy().all()
    label, known = mixing.larger_share([(own, weight), (theirs, rest)])
    np.testing.assert_allclose(known, [0.7, 0.6, 1, 0])
    np.testing.assert_array_equal(label[:3], [0, 1, 1])
    np.testing.assert_allclose(tf.reduce_sum(mixing.mix_labels(labels, mix, 2), axis=1), [0.7, 0.6, 1, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup_alpha": -1}, "mixup_alpha=-1: must be 0 (off) or a number from 0.01 to 100"),
        ({"cutmix_alpha": float("nan")}, "cutmix_alpha=nan: must be 0"),
        ({"cutmix_alpha": "1"}, "cutmix_alpha='1': must be 0"),
        ({"mixup_alpha": True}, "mixup_alpha=True: must be 0"),
    ],
)
def test_a_wrong_alpha_is_named(options, message):
    with pytest.raises(ValueError) as error:
        Mixing(**options)
    assert message in str(error.value)


def test_mixing_says_what_it_does():
    assert str(BOTH) == "mixup_alpha=0.2, cutmix_alpha=1"
    assert not Mixing() and BOTH
