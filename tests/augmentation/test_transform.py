import dataclasses
import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import tensorflow as tf

from deepduel.augment import PRESETS, Augmentation, apply_transform, augment, draw, resize
from deepduel.augmentation.options import FILL_MODES
from tests.helpers.augmented import ORIGINAL, generator, photo_like, seed_pairs

pytestmark = pytest.mark.numeric


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


@pytest.mark.slow
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
    with pytest.raises(ValueError, match="unknown parameter 'rotation'; must be one of blur_sigma"):
        apply_transform(photo_like(1, 8, 8), {"rotation": 3.0})


def test_blur_and_jpeg_follow_the_crop_and_the_resize():
    """`augment` compiles them apart; draw by draw it is `apply_transform` of all parameters."""
    spec = Augmentation(
        crop_size=28, horizontal_flip=True, blur_sigma=(0.0, 1.5), blur_probability=0.5,
        jpeg_quality=(60, 100), jpeg_probability=0.5,
    )  # fmt: skip
    images, seeds = tf.constant(photo_like(8, 32, 32)), seed_pairs(8)
    parameters = draw(spec, seeds, 32, 32)
    assert 0 < np.count_nonzero(parameters["blur_sigma"]) < 8
    expected = apply_transform(images, parameters, size=24, crop_size=28, blur_radius=5)
    difference = np.abs(augment(images, seeds, spec, 24) - expected)
    assert difference.mean() < 0.01  # a coefficient at a half may round up or down
