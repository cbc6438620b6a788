"""Random numbers, and the parameters that are drawn from them."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from deepduel.augment import PRESETS, Augmentation, augment, draw, uniforms
from deepduel.augmentation.draws import threefry
from tests.helpers.augmented import ORIGINAL, generator, photo_like, seed_pairs

pytestmark = pytest.mark.numeric

# --- random numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, tests/kat_vectors: threefry2x32 20
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(counter, key, expected):
    words = lambda pair: tuple(tf.constant([word], tf.uint32) for word in pair)
    for function in (threefry, tf.function(threefry, jit_compile=True)):
        assert tuple(int(word[0]) for word in function(words(key), words(counter))) == expected


def test_uniforms_are_uniform_and_independent():
    values = uniforms(tf.stack([tf.range(20_000), tf.zeros(20_000, tf.int32)], 1), 4).numpy()
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() < 1
    assert min(scipy.stats.kstest(column, "uniform").pvalue for column in values.T) > 1e-3
    correlation = np.corrcoef(np.concatenate([values[:-1], values[1:]], 1).T)
    assert np.abs(correlation - np.eye(8)).max() < 0.03


def test_uniforms_have_golden_values_and_a_stable_prefix():
    seeds = tf.constant([[0, 0], [1, -2]], tf.int32)
    expected = [[0x6B2001, 0x99BA4E]]
    np.testing.assert_array_equal(uniforms(seeds[:1], 2) * 2.0**24, expected)
    np.testing.assert_array_equal(uniforms(seeds, 3), uniforms(seeds, 9)[:, :3])
    assert uniforms(tf.zeros([0, 2], tf.int32), 3).shape == (0, 3)


# --- draws -------------------------------------------------------------------------------------

UNEQUAL = Augmentation(
    rotation_range=20, width_shift_range=0.05, height_shift_range=3.0, shear_range=4, zoom_range=(0.8, 1.5),
    horizontal_flip=True, vertical_flip=True, brightness_range=(0.5, 1.2), channel_shift_range=30,
)  # fmt: skip


@pytest.mark.parametrize("spec", [ORIGINAL, UNEQUAL], ids=["original", "unequal"])
def test_draws_are_distributed_as_image_data_generators(spec):
    count = 3000
    ours = draw(spec, seed_pairs(count), 200, 120)
    np.random.seed(5)
    keras_generator = generator(spec)
    theirs = [keras_generator.get_random_transform((200, 120, 3)) for _ in range(count)]
    assert set(ours) == {name for name, value in theirs[0].items() if value is not None}
    for name, values in ours.items():
        assert values.dtype == tf.float32 and values.shape == (count,)
        reference = np.array([one[name] for one in theirs], float)
        assert scipy.stats.ks_2samp(values.numpy(), reference).pvalue > 1e-3, name


def test_whole_number_shifts_are_drawn_as_pixels_like_image_data_generator():
    spec = Augmentation(width_shift_range=5, height_shift_range=1)
    drawn = draw(spec, seed_pairs(2000), 50, 50)
    assert set(np.unique(drawn["ty"])) == set(range(-4, 5))
    assert set(np.unique(drawn["tx"])) == {0}
    np.random.seed(0)
    theirs = [generator(spec).get_random_transform((50, 50, 3))["ty"] for _ in range(2000)]
    assert set(theirs) == set(range(-4, 5))


def test_one_of_several_shifts_is_drawn_like_image_data_generator():
    spec = Augmentation(width_shift_range=[2, 7, -11], height_shift_range=(0.1, 0.25))
    drawn = draw(spec, seed_pairs(1000), 40, 60)
    np.random.seed(0)
    theirs = [generator(spec).get_random_transform((40, 60, 3)) for _ in range(1000)]
    for name, expected in (("ty", [2, 7, 11]), ("tx", [4, 10])):
        actual = set(np.round(drawn[name].numpy(), 4))
        assert actual == {sign * number for sign in (-1, 1) for number in expected}
        assert actual == {round(float(one[name]), 4) for one in theirs}


def test_a_shift_of_five_is_not_a_shift_of_five_point_nought():
    images, seeds = photo_like(8, 20, 20), seed_pairs(8)
    whole, real = (augment(images, seeds, Augmentation(width_shift_range=reach), 20) for reach in (5, 5.0))
    assert Augmentation(width_shift_range=5) != Augmentation(width_shift_range=5.0)
    assert (whole.numpy() == np.round(whole)).all() and (real.numpy() != np.round(real)).any()


def test_one_option_more_leaves_the_other_draws_alone():
    seeds = seed_pairs(5)
    alone = draw(Augmentation(rotation_range=30), seeds, 32, 32)
    among = draw(ORIGINAL, seeds, 32, 32)
    np.testing.assert_array_equal(alone["theta"], among["theta"])


def test_draws_have_golden_values():
    """Another value would change what a seed does to an image, and with it every run that is resumed."""
    seeds = tf.constant([[0, 0], [1, -2], [2147483647, 5]], tf.int32)
    expected = {
        "theta": [-4.892574310302734, 21.389053344726562, 24.336421966552734],
        "tx": [4.019961357116699, 15.684027671813965, 7.796041965484619],
        "ty": [-5.930185317993164, 3.646343231201172, -3.0263442993164062],
        "shear": [0.05067824199795723, -0.03479595109820366, 0.010532950982451439],
        "zx": [0.9358961582183838, 1.0784733295440674, 0.7232163548469543],
        "zy": [1.2908254861831665, 0.7948867678642273, 1.0513486862182617],
        "flip_horizontal": [0, 0, 0], "flip_vertical": [1, 0, 1],
        "brightness": [1.2429696321487427, 1.651902437210083, 0.4198063015937805],
    }  # fmt: skip
    check_draws(draw(ORIGINAL, seeds, 200, 160), expected)
    robust = {
        "flip_horizontal": [0, 0, 0], "flip_vertical": [1, 0, 1], "quarter_turns": [2, 2, 3],
        "shift_y": [-3, -4, -2], "shift_x": [-8, -4, -3], "blur_sigma": [0, 0, 0], "jpeg_quality": [0, 0, 0],
    }  # fmt: skip
    check_draws(draw(PRESETS["robust"], seeds, 200, 160), robust)
    others = Augmentation(
        width_shift_range=5, height_shift_range=(3, -7), channel_shift_range=20, crop_size=128
    )
    expected = {
        "tx": [7, -7, -7], "ty": [1, -3, 2], "crop_top": [47, 71, 3], "crop_left": [22, 32, 1],
        "channel_shift_intensity": [-11.782472610473633, 11.829166412353516, -6.149141788482666],
    }  # fmt: skip
    check_draws(draw(others, seeds, 200, 160), expected)


def check_draws(drawn, expected):
    assert set(drawn) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(drawn[name], np.float32(values), name)


def test_probabilities_and_whole_numbers_of_draws():
    spec = Augmentation(
        quarter_turns=True, shift_pixels=2, crop_size=28, jpeg_quality=(50, 52), jpeg_probability=0.25,
        blur_sigma=(0.5, 1.0), blur_probability=0.5,
    )  # fmt: skip
    drawn = {name: values.numpy() for name, values in draw(spec, seed_pairs(4000), 30, 28).items()}
    assert set(np.unique(drawn["quarter_turns"])) == {0, 1, 2, 3}
    assert set(np.unique(drawn["shift_y"])) == {-2, -1, 0, 1, 2}
    assert set(np.unique(drawn["crop_top"])) == {0, 1, 2} and set(np.unique(drawn["crop_left"])) == {0}
    assert set(np.unique(drawn["jpeg_quality"])) == {0, 50, 51, 52}
    assert abs((drawn["jpeg_quality"] > 0).mean() - 0.25) < 0.03
    assert abs((drawn["blur_sigma"] > 0).mean() - 0.5) < 0.03
    assert drawn["blur_sigma"][drawn["blur_sigma"] > 0].min() >= 0.5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rotation_range", -1, "rotation_range=-1: must be a number from 0"),
        ("rotation_range", float("nan"), "rotation_range=nan: must be a number"),
        ("width_shift_range", "0.1", "width_shift_range='0.1': must be a number"),
        ("shear_range", 91, "shear_range=91: must be a number from 0 to 90"),
        ("zoom_range", 1.0, "zoom_range=1.0: the lowest factor must be above 0"),
        ("zoom_range", (1.2, 0.8), "the lowest comes first"),
        ("brightness_range", 0.5, "brightness_range=0.5: must be two numbers"),
        ("width_shift_range", (), "width_shift_range=(): must be a number"),
        ("height_shift_range", (1, "2"), "height_shift_range='2': must be a number"),
        ("channel_shift_range", 300, "channel_shift_range=300: must be a number from 0 to 255"),
        ("fill_mode", "mirror", "fill_mode='mirror': must be one of nearest, constant, reflect, wrap"),
        ("cval", -1, "cval=-1: must be a number from 0 to 255"),
        ("rand_augment", 2.0, "rand_augment=2.0: must be a whole number from 0 to 10"),
        ("rand_augment_magnitude", 2, "rand_augment_magnitude=2: must be a number from 0 to 1"),
        ("shift_pixels", 1.5, "shift_pixels=1.5: must be a whole number"),
        ("jpeg_quality", (0, 90), "jpeg_quality=0: must be a number from 1 to 100"),
        ("blur_probability", 2, "blur_probability=2: must be a number from 0 to 1"),
        ("horizontal_flip", "no", "horizontal_flip='no': must be True or False"),
    ],
)
def test_a_wrong_range_is_named(field, value, message):
    with pytest.raises(ValueError) as error:
        Augmentation(**{field: value})
    assert message in str(error.value)
