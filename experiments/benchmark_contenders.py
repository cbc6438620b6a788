"""Who takes part in `benchmark_throughput`, and who is compared with whom. Names only: nothing is imported.

A contender is a function `(job, **options) -> iterator of (images: int, batch)` in one of the
modules `benchmark_ours`, `benchmark_keras`, `benchmark_peers`; it is endless.
"""

import dataclasses
import fnmatch

DECODE = "Read, decode, batch: pixels of the stored size"
DECODED = "The same from pixels that were decoded beforehand"
AUGMENT = "Read, decode, augment as Deepfake Duel did: float32 batches for the model"
ALONE = "The augmentation alone, from a decoded batch"
PHOTOS = "Read, decode, shorter side to the size, centre cut out: uint8 batches"
GROUPS = (DECODE, DECODED, AUGMENT, ALONE, PHOTOS)

_OURS, _KERAS, _PEERS = "benchmark_ours", "benchmark_keras", "benchmark_peers"
_TENSORFLOW = ("tensorflow", "keras")


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to make batches.

    Attributes:
      name: on the command line and in the JSON.
      title: in the table.
      group: one of GROUPS; only contenders of one group do the same work.
      module, function: in this package.
      options: keyword arguments of the function.
      peer: whose environment it runs in (--peer_python); None: this one.
      imports: top-level modules it needs; without them it is "not installed".
      distributions: whose versions are reported.
      reads: what it reads from the disk: "shards", "files", "decoded" (this package's cache), "ffcv_jpg",
        "ffcv_raw"; None: memory.
      prepare: function of the module, run once before all measurements; it fills the scratch folder.
      single: whether it uses one core whatever --threads says.
      note: what differs from the others of its group.
    """

    name: str
    title: str
    group: str
    module: str
    function: str
    options: dict = dataclasses.field(default_factory=dict)
    peer: str | None = None
    imports: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    reads: str | None = "files"
    prepare: str | None = None
    single: bool = False
    note: str = ""


def _bare(name: str, fast: bool, single: bool) -> Contender:
    how = "fast" if fast else "accurate"
    return Contender(
        name, f"bare libjpeg-turbo, {how}, {'one process' if single else 'a process per core'} (the limit)",
        DECODE, _PEERS, "bare", {"fast": fast, "single": single}, imports=("simplejpeg", "numpy"),
        distributions=("simplejpeg",), reads=None, single=single,
        note="bytes in memory, every image into the same buffer, no batches",
    )  # fmt: skip


def _ours(name: str, title: str, group: str = DECODE, function: str = "batches", reads="shards", note="",
          prepare: str | None = None, **options) -> Contender:  # fmt: skip
    return Contender(
        name, f"deepduel: {title}", group, _OURS, function, options, imports=_TENSORFLOW,
        distributions=("tensorflow", "keras", "simplejpeg", "Pillow"), reads=reads, note=note,
        prepare=prepare,
    )  # fmt: skip


def _keras(name: str, title: str, function: str, group: str = DECODE, *, reads: str | None = "files",
           single: bool = False, note: str = "", more: tuple[str, ...] = (),
           **options) -> Contender:  # fmt: skip
    return Contender(
        name, title, group, _KERAS, function, options, imports=(*_TENSORFLOW, *more), reads=reads,
        distributions=("tensorflow", "keras", *(m.replace("_", "-") for m in more)), single=single, note=note,
    )  # fmt: skip


def _ffcv(name: str, title: str, group: str, mode: str, note: str) -> Contender:
    return Contender(
        name, title, group, _PEERS, "ffcv_batches", {"mode": mode}, peer="ffcv", imports=("ffcv", "torch"),
        distributions=("ffcv", "torch"), reads=f"ffcv_{mode}", prepare="ffcv_write", note=note,
    )  # fmt: skip


def _torch(name: str, decoder: str, module: str) -> Contender:
    return Contender(
        name, f"PyTorch DataLoader, {decoder}", DECODE, _PEERS, "torch_batches", {"decoder": module},
        peer="torch", imports=("torch", module), distributions=("torch", module.replace("PIL", "Pillow")),
    )  # fmt: skip


def _dali(name: str, title: str, group: str, function: str) -> Contender:
    return Contender(
        name, title, group, _PEERS, function, peer="dali", imports=("nvidia.dali",),
        distributions=("nvidia-dali-cuda120",),
    )  # fmt: skip


CONTENDERS = (
    _bare("bare_accurate", False, False),
    _bare("bare_fast", True, False),
    _bare("bare_accurate_1", False, True),
    _bare("bare_fast_1", True, True),
    _ours("ours_accurate", "random reader, accurate decode", fast=False, reader="random"),
    _ours("ours_fast", "random reader, --fast_decode", fast=True, reader="random"),
    _ours("ours_sequential", "sequential reader, accurate decode", fast=False, reader="sequential"),
    _ours("ours_sequential_fast", "sequential reader, --fast_decode", fast=True, reader="sequential"),
    _keras("tfdata", "usual tf.data: TFRecordDataset, shuffle, parse, decode_jpeg, batch", "tfdata",
           reads="shards", note="shuffles within 2,048 records"),
    _keras("image_dataset", "image_dataset_from_directory", "image_dataset", note="float32 batches"),
    _keras("flow", "flow_from_directory", "flow", more=("scipy",), single=True, note="float32 batches"),
    _ffcv("ffcv_jpg", "FFCV, JPEG", DECODE, "jpg", "images re-encoded by FFCV at quality 90"),
    _dali("dali", "DALI on the CPU, from files", DECODE, "dali_batches"),
    _torch("torch_simplejpeg", "simplejpeg", "simplejpeg"),
    _torch("torch_pillow", "Pillow", "PIL"),
    _ours("ours_cached_ram", "--cache=ram, once filled", DECODED, "cached", None, folder="",
          note="pixels in memory, three bytes each"),
    _ours("ours_cached_disk", "--cache=decoded:FOLDER, once filled", DECODED, "cached", "decoded",
          prepare="fill", folder="decoded", note="three bytes a pixel on the disk"),
    _ffcv("ffcv_raw", "FFCV, raw", DECODED, "raw", "three bytes a pixel on the disk"),
    _ours("ours_augmented", "random reader and composed warp", AUGMENT, "augmented", fast=False),
    _keras("flow_augmented", "ImageDataGenerator and flow_from_directory (the original)", "flow", AUGMENT,
           more=("scipy",), single=True, augment=True),
    _keras("image_dataset_augmented", "image_dataset_from_directory, Keras layers in map",
           "image_dataset_augmented", AUGMENT),
    _keras("keras_cv", "usual tf.data, keras-cv layers one after another", "keras_cv_stack", AUGMENT,
           reads="shards", more=("keras_cv",)),
    _dali("dali_augmented", "DALI on the CPU: warp_affine (flips inside), brightness", AUGMENT,
          "dali_augmented"),
    _ours("ours_augmentation", "composed warp", ALONE, "augmentation_alone", None),
    _keras("keras_cv_augmentation", "keras-cv layers one after another", "keras_cv_alone", ALONE, reads=None,
           more=("keras_cv",)),
)  # fmt: skip

PHOTO_CONTENDERS = (  # of `benchmark_photos`
    Contender(
        "photos_bare", "bare libjpeg-turbo, accurate, a process per core, nothing resized", PHOTOS, _PEERS,
        "bare_photos", imports=("simplejpeg", "numpy"), distributions=("simplejpeg",), reads=None,
        note="decodes at full size into one buffer; no resize, no batches",
    ),
    _ours("photos_ours", "accurate decode", PHOTOS, "photos", fast=False),
    _ours("photos_ours_fast", "--fast_decode", PHOTOS, "photos", fast=True),
    Contender(
        "photos_ffcv", "FFCV, JPEG, centre crop", PHOTOS, _PEERS, "ffcv_photos", peer="ffcv",
        imports=("ffcv", "torch"), distributions=("ffcv", "torch"), reads="ffcv_jpg",
        prepare="ffcv_write_photos", note="re-encoded by FFCV at quality 90; resized by cv2.INTER_AREA",
    ),
    Contender(
        "photos_dali", "DALI on the CPU, from files", PHOTOS, _PEERS, "dali_photos", peer="dali",
        imports=("nvidia.dali",), distributions=("nvidia-dali-cuda120",), note="bilinear with antialiasing",
    ),
    _keras("photos_image_dataset", "image_dataset_from_directory, crop_to_aspect_ratio",
           "image_dataset_photos", PHOTOS, note="float32 batches, bilinear without antialiasing"),
)  # fmt: skip

RATIOS = (  # numerator, denominator
    ("ours_fast", "ffcv_jpg"),
    ("ours_fast", "bare_fast"),
    ("ours_accurate", "bare_accurate"),
    ("ours_accurate", "tfdata"),
    ("ours_accurate", "dali"),
    ("ours_accurate", "torch_simplejpeg"),
    ("ours_accurate", "image_dataset"),
    ("ours_accurate", "flow"),
    ("ours_sequential", "tfdata"),
    ("ours_cached_ram", "ffcv_raw"),
    ("ours_cached_disk", "ffcv_raw"),
    ("ours_augmented", "flow_augmented"),
    ("ours_augmented", "image_dataset_augmented"),
    ("ours_augmented", "keras_cv"),
    ("ours_augmented", "dali_augmented"),
    ("ours_augmentation", "keras_cv_augmentation"),
    *(
        (ours, other)
        for ours in ("photos_ours", "photos_ours_fast")
        for other in ("photos_bare", "photos_ffcv", "photos_dali", "photos_image_dataset")
    ),
)


def by_name(name: str) -> Contender:
    return next(contender for contender in CONTENDERS + PHOTO_CONTENDERS if contender.name == name)


def select(patterns: list[str], known: tuple[Contender, ...] = CONTENDERS) -> tuple[Contender, ...]:
    """Contenders whose name fits one of the patterns (`ours*`); in their order here.

    Raises:
      ValueError: a pattern that fits none.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(contender.name, pattern) for contender in known):
            names = ", ".join(contender.name for contender in known)
            raise ValueError(f"no contender is called {pattern!r}; there are {names}")
    return tuple(
        contender
        for contender in known
        if any(fnmatch.fnmatchcase(contender.name, pattern) for pattern in patterns)
    )
