"""Loaders outside TensorFlow: contenders of `benchmark_throughput`. Each is imported where it is used.

Epochs are made long (the images many times over) where a loader starts its workers anew for each:
a small data set must not count against it.
"""

import dataclasses
import io
import multiprocessing
import os
import pathlib
import time
from collections.abc import Iterator
from multiprocessing import sharedctypes

from experiments.benchmark_job import Job

FFCV_QUALITY = 90  # FFCV's default
_FFCV_PAGE_BYTES = 8 << 20  # its default
_EPOCH_REPEATS = 50
_SAMPLE_SECONDS = 0.01


def bare(job: Job, *, fast: bool, single: bool) -> Iterator[tuple[int, object]]:
    """libjpeg-turbo in plain loops, a process each: no order, no batches, one buffer, in the cache."""
    processes = 1 if single else job.threads
    context = multiprocessing.get_context("fork")
    done = [sharedctypes.RawValue("q", 0) for _ in range(processes)]
    for number in range(processes):
        share = job.files[number::processes] or job.files
        context.Process(
            target=_decode_for_ever, args=(share, job.size, fast, done[number]), daemon=True
        ).start()
    counted = 0
    while True:
        time.sleep(_SAMPLE_SECONDS)
        total = sum(counter.value for counter in done)
        if all(counter.value for counter in done):
            yield total - counted, f"uint8 {[*job.size, 3]}, one at a time"
            counted = total


def _decode_for_ever(files: list[str], size, fast: bool, done) -> None:
    import numpy as np
    import simplejpeg

    encoded = [_read(path) for path in files]
    buffer = np.empty((*size, 3), np.uint8)
    parent = os.getppid()
    while os.getppid() == parent:  # nobody is left to stop it otherwise
        for data in encoded:
            simplejpeg.decode_jpeg(data, "RGB", fast, fast, buffer=buffer)
            done.value += 1


def bare_photos(job: Job) -> Iterator[tuple[int, object]]:
    """Images of any size, decoded whole."""
    largest = max(_pixels(path) for path in job.files)
    yield from bare(dataclasses.replace(job, size=(largest, 1)), fast=False, single=False)


def _pixels(path: str) -> int:
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(_read(path))[:2]
    return height * width


def ffcv_write_photos(job: Job) -> None:
    """As JPEG, at their own sizes."""
    ffcv_write(job, mode="jpg")


def ffcv_photos(job: Job) -> Iterator[tuple[int, object]]:
    """uint8 [B, S, S, 3] of images of any size."""
    from ffcv.fields import decoders

    size = (job.target_size, job.target_size)
    yield from ffcv_batches(job, mode="jpg", decoder=decoders.CenterCropRGBImageDecoder(size, ratio=1.0))


def dali_photos(job: Job) -> Iterator[tuple[int, object]]:
    """uint8, a batch of [S, S, 3], of images of any size."""
    from nvidia import dali
    from nvidia.dali import fn, types

    @dali.pipeline_def
    def pipeline():
        images, labels = _dali_decoded(job)
        side = float(job.target_size)
        small = fn.resize(images, resize_shorter=side, interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.crop(small, crop=(side, side)), labels

    yield from _dali_run(pipeline, job)


def ffcv_write(job: Job, *, mode: str) -> None:
    """Writes the images as FFCV's own file: "jpg" (encoded anew) or "raw"."""
    from ffcv import fields, writer

    class Images:
        def __len__(self):
            return len(job.files)

        def __getitem__(self, index):
            return _pillow(job.files[index]), job.labels[index]

    image = fields.RGBImageField(write_mode=mode, jpeg_quality=FFCV_QUALITY)
    columns = {"image": image, "label": fields.IntField()}
    largest = max(pathlib.Path(path).stat().st_size for path in job.files)
    page_bytes = max(_FFCV_PAGE_BYTES, 1 << (4 * largest).bit_length())  # an image that fits none hangs it
    beton = writer.DatasetWriter(job.beton(mode), columns, page_size=page_bytes, num_workers=job.threads)
    beton.from_indexed_dataset(Images())


def ffcv_batches(job: Job, *, mode: str, decoder=None) -> Iterator[tuple[int, object]]:
    """uint8 [B, H, W, 3], the data set in the page cache, true random order."""
    import numpy as np
    from ffcv.fields import decoders
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    loader = Loader(
        job.beton(mode), batch_size=job.batch_size, num_workers=job.threads, order=OrderOption.RANDOM,
        os_cache=True, drop_last=False, indices=np.tile(np.arange(len(job.files)), _EPOCH_REPEATS),
        pipelines={
            "image": [decoder or decoders.SimpleRGBImageDecoder(), ToTensor()],
            "label": [decoders.IntDecoder(), ToTensor()],
        },
    )  # fmt: skip
    while True:
        for images, _ in loader:
            yield len(images), images


def dali_batches(job: Job) -> Iterator[tuple[int, object]]:
    """uint8, a batch of [H, W, 3]."""
    from nvidia import dali

    @dali.pipeline_def
    def pipeline():
        return _dali_decoded(job)

    yield from _dali_run(pipeline, job)


def dali_augmented(job: Job) -> Iterator[tuple[int, object]]:
    """float32, a batch of [S, S, 3]: one warp_affine with resize and flips inside, then brightness."""
    from nvidia import dali
    from nvidia.dali import fn, types

    @dali.pipeline_def
    def pipeline():
        images, labels = _dali_decoded(job)
        height, width = job.size
        between = lambda low, high: fn.random.uniform(range=[low, high])
        mirror = lambda: 1.0 - 2.0 * fn.cast(fn.random.coin_flip(), dtype=types.FLOAT)
        enlarge = job.target_size / width, job.target_size / height
        matrix = fn.transforms.translation(offset=[-width / 2, -height / 2])
        scale = fn.stack(between(0.7, 1.3) * mirror(), between(0.7, 1.3) * mirror())
        matrix = fn.transforms.scale(matrix, scale=scale)
        matrix = fn.transforms.shear(matrix, angles=fn.stack(between(-0.1, 0.1), between(-1e-6, 1e-6)))
        matrix = fn.transforms.rotation(matrix, angle=between(-30.0, 30.0))
        matrix = fn.transforms.scale(matrix, scale=list(enlarge))
        centre = job.target_size / 2
        shift = 0.1 * job.target_size
        offset = fn.stack(between(centre - shift, centre + shift), between(centre - shift, centre + shift))
        matrix = fn.transforms.translation(matrix, offset=offset)
        side = job.target_size
        warped = fn.warp_affine(images, matrix=matrix, inverse_map=False, size=(side, side))
        return fn.brightness(warped, brightness=between(0.3, 1.7), dtype=types.FLOAT), labels

    yield from _dali_run(pipeline, job)


def _dali_decoded(job: Job):
    from nvidia.dali import fn, types

    encoded, labels = fn.readers.file(
        files=job.files, labels=job.labels, random_shuffle=True, initial_fill=2048, name="files"
    )
    return fn.decoders.image(encoded, device="cpu", output_type=types.RGB), labels


def _dali_run(pipeline, job: Job) -> Iterator[tuple[int, object]]:
    built = pipeline(
        batch_size=job.batch_size, num_threads=job.threads, device_id=None, prefetch_queue_depth=2
    )
    built.build()
    while True:
        images = built.run()[0]
        kind = str(images.dtype).rpartition(".")[2].lower().replace("float", "float32")
        yield len(images), f"{kind} {[len(images), *images[0].shape()]}"


def torch_batches(job: Job, *, decoder: str) -> Iterator[tuple[int, object]]:
    """uint8 [B, H, W, 3], worker processes."""
    import torch
    from torch.utils import data

    class Images(data.Dataset):
        def __len__(self):
            return len(job.files)

        def __getitem__(self, index):
            read = _simplejpeg if decoder == "simplejpeg" else _pillow
            return torch.from_numpy(read(job.files[index])), job.labels[index]

    images = Images()
    sampler = data.RandomSampler(images, num_samples=len(job.files) * _EPOCH_REPEATS)
    loader = data.DataLoader(images, job.batch_size, sampler=sampler, num_workers=job.threads)
    while True:
        for batch, _ in loader:
            yield len(batch), batch


def _simplejpeg(path: str):
    import simplejpeg

    return simplejpeg.decode_jpeg(_read(path))


def _pillow(path: str):
    import numpy as np
    from PIL import Image

    return np.array(Image.open(io.BytesIO(_read(path))).convert("RGB"))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123, without the time of pathlib
        return file.read()
