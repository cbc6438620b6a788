"""The presets of --augmentation, by name."""

from deepduel.augmentation.options import Augmentation

PRESETS: dict[str, Augmentation] = {
    # The ImageDataGenerator of the original experiment, Deepfake Duel.
    "original": Augmentation(
        rotation_range=30,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=0.1,
        zoom_range=0.3,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.3, 1.7),
    ),
    # Moves pixels without interpolation, so that the traces of a generator or a sensor stay as they are.
    "forensic": Augmentation(horizontal_flip=True, vertical_flip=True, quarter_turns=True, shift_pixels=8),
    # `forensic`, and the blur and compression that pictures meet on the web.
    "robust": Augmentation(
        horizontal_flip=True,
        vertical_flip=True,
        quarter_turns=True,
        shift_pixels=8,
        blur_sigma=(0.0, 1.5),
        blur_probability=0.2,
        jpeg_quality=(60, 100),
        jpeg_probability=0.5,
    ),
    "light": Augmentation(
        rotation_range=10,
        width_shift_range=0.05,
        height_shift_range=0.05,
        zoom_range=0.1,
        horizontal_flip=True,
        brightness_range=(0.8, 1.2),
    ),
    "none": Augmentation(),
}
