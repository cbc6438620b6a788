import dataclasses
import json
import os
import pathlib

import keras
import keras_cv
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from deepduel import degrade
from deepduel.augment import (
    PRESETS,
    Augmentation,
    RandomWarp,
    apply_transform,
    augment,
    draw,
    resize,
    uniforms,
)
from deepduel.augmentation import FILL_MODES
from deepduel.draws import threefry

ORIGINAL = PRESETS["original"]


def generator(spec=ORIGINAL):
    """Keras's generator with the same ranges."""
    return ImageDataGenerator(
        rotation_range=spec.rotation_range,
        width_shift_range=spec.width_shift_range,
        height_shift_range=spec.height_shift_range,
        shear_range=spec.shear_range,
        zoom_range=list(spec.zooms),
        horizontal_flip=spec.horizontal_flip,
        vertical_flip=spec.vertical_flip,
        brightness_range=spec.brightness_range,
        channel_shift_range=spec.channel_shift_range,
        fill_mode=spec.fill_mode,
        cval=spec.cval,
    )


def photo_like(count, height, width, seed=0):
    """uint8 pictures: smooth shapes, edges and fine texture."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, height, width, 3))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 12, 12, 0.5))
    edges = np.sign(scipy.ndimage.gaussian_filter(noise[..., ::-1], (0, 6, 6, 0)))
    texture = scipy.ndimage.gaussian_filter(noise, (0, 0.8, 0.8, 0))
    mix = 50 * smooth / smooth.std() + 25 * edges + 12 * texture / texture.std()
    return np.clip(128 + mix, 0, 255).astype(np.uint8)


def seed_pairs(count, start=0):
    return tf.constant(np.random.default_rng(start).integers(-(2**31), 2**31, (count, 2)), tf.int32)


def parity(images, spec, seeds):
    """Mean absolute grey levels between us and Keras per draw, away from the border."""
    parameters = draw(spec, seeds, *images.shape[1:3])
    ours = apply_transform(images, parameters, fill_mode=spec.fill_mode, cval=spec.cval).numpy()
    keras_generator = generator(spec)
    gaps = []
    for k, image in enumerate(images):
        theirs = keras_generator.apply_transform(
            image.astype("float32"), {name: float(value[k]) for name, value in parameters.items()}
        )
        gaps.append(np.abs(theirs - ours[k])[4:-4, 4:-4].mean())
    return np.array(gaps)


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
        found = set(np.round(drawn[name].numpy(), 4))
        assert found == {sign * number for sign in (-1, 1) for number in expected}
        assert found == {round(float(one[name]), 4) for one in theirs}


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


# --- parity with ImageDataGenerator --------------------------------------------------------------


def test_pixels_equal_image_data_generators_draw_by_draw():
    gaps = parity(photo_like(24, 64, 64), ORIGINAL, seed_pairs(24))
    assert gaps.max() < 0.25 and gaps.mean() < 0.1  # grey levels; measured 0.04 and 0.02


FAR = Augmentation(
    rotation_range=180, width_shift_range=1.5, height_shift_range=0.9, shear_range=40, zoom_range=(0.5, 6),
    horizontal_flip=True, vertical_flip=True, channel_shift_range=60,
)  # fmt: skip


@pytest.mark.parametrize("mode", [{"fill_mode": "constant", "cval": 77.5}, {"fill_mode": "reflect"},
                                  {"fill_mode": "wrap"}, {"fill_mode": "nearest"}], ids=str)  # fmt: skip
def test_what_lies_outside_is_what_image_data_generator_puts_there(mode):
    spec = dataclasses.replace(FAR, **mode)
    gaps = parity(photo_like(40, 40, 40), spec, seed_pairs(40))
    assert gaps.max() < 0.5 and gaps.mean() < 0.15


@pytest.mark.parametrize("mode", FILL_MODES)
@pytest.mark.parametrize("shift", [(3, -2), (-25, 61), (20, -20)])
def test_whole_shifts_fill_as_interpolated_ones_do(mode, shift):
    """The exact kernel against the bilinear one (theta 0 chooses it), and against scipy."""
    image = photo_like(1, 20, 20)
    moved = {"shift_y": float(shift[0]), "shift_x": float(shift[1])}
    exact = apply_transform(image, moved, fill_mode=mode, cval=9.0).numpy()
    np.testing.assert_array_equal(
        exact, apply_transform(image, {**moved, "theta": 0.0}, fill_mode=mode, cval=9.0)
    )
    reference = scipy.ndimage.affine_transform(
        image[0].astype(float), np.eye(3), (-shift[0], -shift[1], 0), order=1, mode=mode, cval=9.0
    )
    np.testing.assert_array_equal(exact[0], reference)


@pytest.mark.parametrize("mode", FILL_MODES)
def test_a_resize_needs_no_filling(mode):
    image = photo_like(1, 20, 20)
    out = apply_transform(image, {"theta": 0.0}, size=31, fill_mode=mode, cval=255.0)
    np.testing.assert_array_equal(out, apply_transform(image, {"theta": 0.0}, size=31))
    shrunk = apply_transform(image, {"theta": 0.0}, size=7, fill_mode=mode, cval=255.0)
    np.testing.assert_array_equal(shrunk, apply_transform(image, {"theta": 0.0}, size=7))


@pytest.mark.parametrize(
    "parameters",
    [
        {"theta": 37.0}, {"theta": -90.0}, {"tx": 7.5}, {"ty": -3.25}, {"shear": 20.0},
        {"zx": 0.6}, {"zy": 1.7}, {"flip_horizontal": 1.0}, {"flip_vertical": 1.0},
        {"brightness": 0.45}, {"brightness": 1.6}, {"channel_shift_intensity": -80.0},
        {"theta": 200.0, "tx": 30.0, "ty": 9.0, "shear": -45.0, "zx": 2.0, "zy": 0.5, "flip_vertical": 1.0},
    ],
)  # fmt: skip
def test_each_parameter_means_what_it_means_to_keras(parameters):
    image = photo_like(1, 48, 48, seed=3)
    theirs = generator().apply_transform(image[0].astype("float32"), parameters)
    ours = apply_transform(image, parameters).numpy()[0]
    assert np.abs(ours - theirs).mean() < 0.25
    assert np.abs(ours - theirs).max() <= 4


@pytest.mark.real_data
def test_pixels_equal_image_data_generators_on_photographs_over_a_thousand_draws():
    folder = pathlib.Path(os.environ.get("DEEPDUEL_DATA", ""), "photos")
    if "DEEPDUEL_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("DEEPDUEL_DATA names no folder with photos/")
    crops = []
    for path in sorted(folder.glob("*.JPEG")):
        image = np.asarray(PIL.Image.open(path).convert("RGB"))
        top, left = ((side - 200) // 2 for side in image.shape[:2])
        if min(top, left) >= 0:
            crops.append(image[top : top + 200, left : left + 200])
    images = np.stack([crops[k % len(crops)] for k in range(50)])
    gaps = np.concatenate([parity(images, ORIGINAL, seed_pairs(50, start)) for start in range(20)])
    print(f"{len(gaps)} draws: mean {gaps.mean():.4f}, worst draw {gaps.max():.4f} grey levels")
    assert len(gaps) == 1000 and gaps.max() < 0.25  # measured: mean 0.016, worst 0.054


def test_images_that_are_not_square_turn_about_their_centre():
    image = np.zeros((1, 21, 31, 3), np.uint8)
    image[0, 10, 13] = 200  # two columns left of the centre
    turned = apply_transform(image, {"theta": 90.0}).numpy()[0, ..., 0]
    assert np.argwhere(turned > 100).tolist() == [[12, 15]]
    square = apply_transform(image[:, :, 5:26], {"theta": 90.0}).numpy()[0, ..., 0]
    np.testing.assert_allclose(turned[:, 5:26], square, atol=1)


def test_resize_inside_the_warp_equals_warp_of_the_resized_map():
    """The composed sampling against scipy at the composed coordinates."""
    image = photo_like(1, 40, 60)
    parameters = {"theta": 15.0, "zx": 0.9, "flip_horizontal": 1.0}
    ours = apply_transform(image, parameters, size=(50, 45)).numpy()[0]
    i, j = np.meshgrid(np.arange(50), np.arange(45), indexing="ij")
    v, u = (i + 0.5) * 40 / 50 - 20, -((j + 0.5) * 60 / 45 - 30)
    cosine, sine = np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))
    column, row = cosine * 0.9 * u - sine * v + 29.5, sine * 0.9 * u + cosine * v + 19.5
    for channel in range(3):
        reference = scipy.ndimage.map_coordinates(
            image[0, ..., channel].astype(float), [row, column], order=1, mode="nearest"
        )
        assert np.abs(ours[..., channel] - reference).mean() < 0.1


def test_a_warp_at_rest_with_a_resize_is_tensorflows_resize():
    images = photo_like(2, 40, 40)
    np.testing.assert_allclose(
        apply_transform(images, {"theta": 0.0}, size=56), tf.image.resize(images, (56, 56)), atol=0.6
    )


def test_shrinking_by_much_averages_instead_of_skipping():
    stripes = np.zeros((1, 96, 96, 3), np.uint8)
    stripes[:, ::2] = 200
    out = apply_transform(stripes, {"theta": 0.0}, size=24).numpy()
    np.testing.assert_allclose(out, 100, atol=1)


def test_extreme_parameters_give_the_edge_and_not_garbage():
    images = photo_like(1, 32, 48)
    right = apply_transform(images, {"tx": 1e9}).numpy()
    np.testing.assert_array_equal(right, np.repeat(images[:, :, -1:], 48, axis=2))
    far = apply_transform(
        images, {"zx": 1e6, "zy": 1e6, "theta": 45.0, "tx": -1e9, "ty": 1e9}, size=64
    ).numpy()
    assert far.min() >= 0 and far.max() <= 255


# --- without interpolation -----------------------------------------------------------------------


def test_forensic_pixels_are_input_pixels():
    images = photo_like(6, 32, 32)
    out = augment(images, seed_pairs(6), PRESETS["forensic"], 32).numpy()
    assert (out == np.round(out)).all()
    for before, after in zip(images, out, strict=True):
        known = {tuple(pixel) for pixel in before.reshape(-1, 3)}
        assert {tuple(pixel) for pixel in after.astype(np.uint8).reshape(-1, 3)} <= known


def test_quarter_turns_flips_and_shifts_are_numpys():
    images = photo_like(4, 20, 20)
    turned = apply_transform(images, {"quarter_turns": [0.0, 1.0, 2.0, 3.0]}).numpy()
    for turns in range(4):
        np.testing.assert_array_equal(turned[turns], np.rot90(images[turns], turns))
    flipped = apply_transform(images, {"flip_horizontal": [1.0, 0, 1, 0], "flip_vertical": 1.0}).numpy()
    np.testing.assert_array_equal(flipped[0], images[0, ::-1, ::-1])
    np.testing.assert_array_equal(flipped[1], images[1, ::-1])
    moved = apply_transform(images, {"shift_y": 3.0, "shift_x": -2.0}).numpy()
    np.testing.assert_array_equal(moved[:, 3:, :-2], images[:, :-3, 2:])
    np.testing.assert_array_equal(moved[:, :3, :-2], np.repeat(images[:, :1, 2:], 3, axis=1))


def test_crops_are_pieces_of_the_image():
    images = photo_like(5, 30, 40)
    spec = Augmentation(crop_size=16)
    seeds = seed_pairs(5)
    out = augment(images, seeds, spec, None).numpy()
    drawn = draw(spec, seeds, 30, 40)
    for k in range(5):
        top, left = int(drawn["crop_top"][k]), int(drawn["crop_left"][k])
        np.testing.assert_array_equal(out[k], images[k, top : top + 16, left : left + 16])
    np.testing.assert_array_equal(resize(images, None, crop_size=16), images[:, 7:23, 12:28])
    with pytest.raises(ValueError, match="crop_size=31: larger than the images"):
        augment(images, seeds, Augmentation(crop_size=31), None)


def test_quarter_turns_of_oblong_images_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="quarter turns need square images, not 20x30; set crop_size"):
        apply_transform(photo_like(1, 20, 30), {"quarter_turns": 1.0})


# --- the same everywhere ---------------------------------------------------------------------------


def test_eager_compiled_and_mapped_have_the_same_bits_whatever_the_batch():
    images, seeds = photo_like(9, 40, 40), seed_pairs(9)
    whole = augment(images, seeds, ORIGINAL, 44).numpy()
    eager = apply_transform(images, draw(ORIGINAL, seeds, 40, 40), size=44)
    np.testing.assert_array_equal(whole, eager)
    for batch in (1, 4):
        for start in range(0, 9, batch):
            part = augment(images[start : start + batch], seeds[start : start + batch], ORIGINAL, 44)
            np.testing.assert_array_equal(part, whole[start : start + batch])
    dataset = tf.data.Dataset.from_tensor_slices((images, seeds)).batch(4)  # the last batch holds one
    dataset = dataset.map(lambda i, s: augment(i, s, ORIGINAL, 44), num_parallel_calls=2)
    np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), whole)
    backwards = augment(images[::-1], seeds[::-1], ORIGINAL, 44).numpy()
    np.testing.assert_array_equal(backwards[::-1], whole)


def test_float_images_give_nearly_what_uint8_images_give():
    images, seeds = photo_like(3, 24, 24), seed_pairs(3)
    spec = Augmentation(rotation_range=30, zoom_range=0.2)
    np.testing.assert_allclose(
        augment(images.astype("float32"), seeds, spec, 24), augment(images, seeds, spec, 24), atol=1e-3
    )


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_take_one_pixel_and_no_image_at_all(preset):
    one = augment(np.full((1, 1, 1, 3), 90, np.uint8), tf.zeros([1, 2], tf.int32), Augmentation(), 4)
    np.testing.assert_array_equal(one, np.full((1, 4, 4, 3), 90))
    spec = PRESETS[preset]
    pixel = augment(np.full((1, 1, 1, 3), 90, np.uint8), tf.zeros([1, 2], tf.int32), spec, 3).numpy()
    assert pixel.shape == (1, 3, 3, 3) and np.ptp(pixel) <= 1
    empty = augment(np.zeros((0, 8, 8, 3), np.uint8), tf.zeros([0, 2], tf.int32), spec, 8)
    assert empty.shape == (0, 8, 8, 3) and empty.dtype == tf.float32


def test_none_changes_only_the_type_and_size():
    images = photo_like(2, 20, 30)
    np.testing.assert_array_equal(augment(images, seed_pairs(2), Augmentation(), None), images)
    np.testing.assert_array_equal(
        augment(images, seed_pairs(2), Augmentation(), (25, 35)), tf.image.resize(images, (25, 35))
    )
    np.testing.assert_array_equal(resize(images, 8), tf.image.resize(images, (8, 8), antialias=True))


def test_an_unknown_parameter_is_an_error_and_not_ignored():
    with pytest.raises(ValueError, match="unknown parameter 'rotation'; known are blur_sigma"):
        apply_transform(photo_like(1, 8, 8), {"rotation": 3.0})


# --- pixels in place -------------------------------------------------------------------------------


def test_brightness_is_pillows():
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    for factor in (0.0, 0.3, 0.77, 1.0, 1.21, 1.7, 3.0):
        enhanced = PIL.ImageEnhance.Brightness(PIL.Image.fromarray(values[0])).enhance(factor)
        ours = degrade.brightness(tf.cast(values, tf.float32), tf.constant([factor]))
        np.testing.assert_array_equal(ours[0], np.asarray(enhanced))


def test_blur_is_scipys_gaussian_and_zero_leaves_the_image():
    images = photo_like(2, 30, 26).astype("float32")
    ours = degrade.blur(tf.constant(images), tf.constant([0.0, 1.3]), 6).numpy()
    np.testing.assert_array_equal(ours[0], images[0])
    reference = scipy.ndimage.gaussian_filter(images[1], (1.3, 1.3, 0), mode="nearest", radius=(6, 6, 0))
    np.testing.assert_allclose(ours[1], reference, atol=1e-2)


@pytest.mark.parametrize("size", [(48, 64), (40, 52)])
@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_jpeg_leaves_what_libjpeg_leaves(quality, size, tmp_path):
    image = photo_like(1, *size, seed=quality)
    PIL.Image.fromarray(image[0]).save(tmp_path / "a.jpg", quality=quality, subsampling=2)
    reference = np.asarray(PIL.Image.open(tmp_path / "a.jpg")).astype(float)
    ours = degrade.jpeg(tf.cast(image, tf.float32), tf.constant([float(quality)])).numpy()[0]
    damage = np.abs(reference - image[0]).mean()
    assert np.abs(ours - reference).mean() < min(1.1, damage / 5)  # measured: 0.24 to 1.06
    untouched = degrade.jpeg(tf.cast(image, tf.float32), tf.constant([0.0]))
    np.testing.assert_array_equal(untouched, image)


# --- the layer -------------------------------------------------------------------------------------


def test_the_layer_with_seeds_is_augment():
    images, seeds = tf.constant(photo_like(3, 24, 24)), seed_pairs(3)
    layer = RandomWarp(size=28, augmentation=ORIGINAL)
    expected = augment(images, seeds, ORIGINAL, 28)
    out = layer({"images": images, "labels": tf.constant([1, 2, 3]), "seeds": seeds})
    np.testing.assert_array_equal(out["images"], expected)
    single = layer({"images": images[1], "seeds": seeds[1]})
    np.testing.assert_array_equal(single["images"], expected[1])
    mapped = tf.data.Dataset.from_tensors({"images": images, "seeds": seeds}).map(layer)
    np.testing.assert_array_equal(next(iter(mapped))["images"], expected)


@pytest.mark.parametrize("seed", [0, 1, -5])
def test_the_layers_own_seed_repeats_and_moves_on(seed):
    images = tf.constant(photo_like(2, 16, 16))
    one, other = (RandomWarp(seed=seed, rotation_range=90, zoom_range=0.3) for _ in range(2))
    first, second = one(images), one(images)
    np.testing.assert_array_equal(first, other(images))
    np.testing.assert_array_equal(second, other(images))
    assert np.abs(first - second).max() > 1
    assert np.abs(RandomWarp(seed=seed + 7, rotation_range=90)(images) - first).max() > 1


def test_without_training_the_layer_only_resizes():
    images = tf.constant(photo_like(2, 24, 24))
    layer = RandomWarp(size=30, seed=0, augmentation=ORIGINAL)
    np.testing.assert_array_equal(layer(images, training=False), resize(images, 30))
    model = keras.Sequential([keras.Input((24, 24, 3), dtype="uint8"), layer])
    assert model.output_shape == (None, 30, 30, 3)
    np.testing.assert_array_equal(model.predict(images, verbose=0), resize(images, 30))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_labels_keep_their_type_under_every_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = RandomWarp(seed=0, augmentation=ORIGINAL)
        images = tf.constant(photo_like(2, 16, 16))
        for labels in (tf.constant([300_001, 2]), tf.constant([[0.1, 0.9]] * 2), tf.constant([True, False])):
            out = layer({"images": images, "labels": labels})
            assert out["labels"].dtype == labels.dtype
            np.testing.assert_array_equal(out["labels"], labels)
            assert out["images"].dtype == tf.float32
        half = RandomWarp(seed=0, augmentation=ORIGINAL, dtype=policy)(images)
        assert half.dtype == keras.DTypePolicy(policy).compute_dtype
    finally:
        keras.config.set_dtype_policy(before)


def test_the_layer_survives_serialisation():
    layer = RandomWarp(size=20, seed=0, augmentation=ORIGINAL, name="warp")
    config = json.loads(json.dumps(layer.get_config()))
    again = RandomWarp.from_config(config)
    assert (again.augmentation, again.size, again.seed, again.name) == (ORIGINAL, (20, 20), 0, "warp")
    images = tf.constant(photo_like(2, 24, 24))
    np.testing.assert_array_equal(again(images), layer(images))


def test_a_saved_model_holds_the_layer(tmp_path):
    layer = RandomWarp(size=20, seed=0, augmentation=ORIGINAL)
    model = keras.Sequential([keras.Input((24, 24, 3), dtype="uint8"), layer])
    model.save(tmp_path / "model.keras")
    images = photo_like(2, 24, 24)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))


def test_a_model_with_the_layer_is_not_compiled_by_xla_as_a_whole():
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), RandomWarp(seed=0, rotation_range=9), keras.layers.Flatten(),
         keras.layers.Dense(1)]
    )  # fmt: skip
    model.compile("sgd", "mse", jit_compile="auto")
    model.fit(photo_like(4, 12, 12) / 255, np.zeros(4), verbose=0)
    assert not model.jit_compile


def test_other_keras_cv_layers_can_follow():
    images = tf.constant(photo_like(4, 24, 24))
    labels = tf.one_hot([0, 1, 2, 1], 3)
    batch = RandomWarp(size=32, seed=0, augmentation=ORIGINAL)({"images": images, "labels": labels})
    for layer in (
        keras_cv.layers.RandAugment(value_range=(0, 255), seed=1),
        keras_cv.layers.CutMix(seed=1),
        keras_cv.layers.MixUp(seed=1),
    ):
        batch = layer(batch)
    assert batch["images"].shape == (4, 32, 32, 3)
    np.testing.assert_allclose(tf.reduce_sum(batch["labels"], axis=1), 1, atol=1e-5)


def test_what_the_layer_cannot_move_is_refused():
    with pytest.raises(ValueError, match="'segmentation_masks' would no longer fit"):
        RandomWarp(seed=0)({"images": photo_like(1, 8, 8), "segmentation_masks": np.zeros((1, 8, 8, 1))})


def test_the_layer_takes_numpy_arrays():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    expected = RandomWarp(size=8, seed=0, rotation_range=20)(tf.constant(images))
    np.testing.assert_array_equal(RandomWarp(size=8, seed=0, rotation_range=20)(images), expected)
    found = RandomWarp(size=8, seed=0, rotation_range=20)({"images": images})["images"]
    np.testing.assert_array_equal(found, expected)


def test_the_readmes_examples_run(toy_shards):
    readme = (pathlib.Path(__file__).parents[1] / "README.md").read_text("utf-8")
    section = readme[readme.index("### As layers") : readme.index("## Evaluating")]
    blocks = [part.split("```")[0] for part in section.split("```python\n")[1:]]
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        for full, small in (("SHARDS", str(toy_shards)), ("200, 200", "32, 32"), ("size=224", "size=16")):
            block = block.replace(full, small)
        exec(block.replace(" 224", " 16").replace("keras.layers.Conv2D(32", "keras.layers.Conv2D(2"), names)
    images, labels = next(iter(names["mixed"]))
    assert images.shape == (64, 16, 16, 3) and labels.shape == (64, 3)
    assert names["pixels"].shape == (8, 16, 16, 3) and names["labels"].shape == (8, 3)
