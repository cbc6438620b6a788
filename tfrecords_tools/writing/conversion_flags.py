"""The flags of `convert`: a row per flag, from which definitions and the groups of --help are made."""

from typing import Any, NamedTuple

from absl import flags

from tfrecords_tools.checking import duplicates
from tfrecords_tools.images import encoding_options, rgb
from tfrecords_tools.listing import choice, label_file


class _Flag(NamedTuple):
    """One flag; `help` is a sentence or two, `usual` flags are shown by --help, the others by --helpfull."""

    name: str
    default: Any
    help: str
    usual: bool = False
    choices: tuple[str, ...] = ()


_INPUT = (
    _Flag(
        "input_dir",
        None,
        "Folder of images, an archive of one (.zip, .tar, .tar.gz, …), tfds:NAME[:SPLIT] for a data set of "
        "TensorFlow Datasets, tar:FILES for WebDataset, or parquet:FILES for Parquet as Hugging Face writes. "
        "Also called --input.",
        usual=True,
    ),
    _Flag(
        "include",
        "",
        "Patterns of the images to convert, such as cats,dogs or 'train/*/*.png': paths, "
        "directories, file names, or names of classes. By default everything.",
    ),
    _Flag(
        "exclude",
        "",
        "Patterns of the images to leave out, written as for --include, or files that list paths, written "
        "@FILE, such as the doubted_labels.csv of deepduel.evaluate.",
    ),
    _Flag(
        "split",
        "",
        "Splits to make in a folder that has none, and their shares, such as "
        "train:0.7,validation:0.25,test:0.05. A hash of its content decides the split of each image.",
        usual=True,
    ),
    _Flag(
        "group",
        "",
        "With --split: images for which this text is equal stay in one split. It consists of {stem}, {name}, "
        "{parent}, {key} and the label axes; '{stem:.8}' is the first 8 letters of the file name.",
    ),
    _Flag(
        "drop_duplicates",
        "none",
        "What to do with an image that occurs in several splits: none keeps all copies; across_splits keeps "
        "it in test if it occurs there, otherwise in validation, and removes it from the other splits.",
        choices=("none", "across_splits"),
    ),
    _Flag(
        "duplicate_distance",
        duplicates.DISTANCE,
        "Images whose 64-bit perceptual hashes differ in at most this many bits are near duplicates; "
        "-1 finds exact copies only.",
    ),
    _Flag(
        "max_pixels",
        encoding_options.MAX_PIXELS,
        "Images with more pixels are rejected without being decoded; above 100 million, --image_size is "
        "needed too.",
    ),
    _Flag("max_rejected", 0.01, "Maximum share of images that may be rejected, 0 to 1."),
    _Flag(
        "allow_missing_classes",
        False,
        "Accept a split without images of some class, also if all of them were rejected.",
    ),
)
_LABELS = (
    _Flag(
        "layout",
        None,
        "What each level of directories means, from the top: {split}, {authenticity}, {category} or any "
        "other label axis, * for any directory, ** for any number of them, or a fixed name. The last part "
        "may be a pattern of file names, such as {category}_*.jpg. Detected by default.",
        usual=True,
    ),
    _Flag(
        "metadata",
        None,
        "CSV file in --input_dir with paths of images and their labels, in UTF-8. By default every "
        "metadata.csv; --metadata= reads none.",
        usual=True,
    ),
    _Flag(
        "label_columns",
        "",
        "Label axes and the columns that hold their labels, AXIS=COLUMN,…, instead of those that directories "
        "give; split=COLUMN for splits. By default class (category), label, split, and columns named like an "
        "axis. Also for the features of tfds:, the JSON fields of tar: and the columns of parquet:.",
    ),
    _Flag(
        "path_column",
        "",
        "Column of the images' paths; a number, counted from 0, for a file without a header line. By default "
        "image_path, path, file, image, filename or file_name.",
    ),
    _Flag(
        "base_dir",
        None,
        "Directory in --input_dir to which these paths are relative. By default that of the CSV file.",
    ),
    _Flag("path_suffix", "", "Suffix to append to these paths, such as .jpg."),
    _Flag("metadata_encoding", "", "Encoding of the CSV file if it is not UTF-8, such as cp1252 or latin-1."),
    _Flag(
        "missing",
        "fail",
        "What to do with rows without an image and images without a row: fail, or skip (leave out and count "
        "them).",
        choices=label_file.MISSING,
    ),
    _Flag(
        "merge",
        "",
        "Classes or splits to rename or merge, OLD,OLD:NEW; several are separated by semicolons: "
        "'lion,tiger:cat;wolf:dog'.",
    ),
    _Flag(
        "class_order",
        choice.SORTED,
        "How classes are numbered: sorted, natural (class2 before class10), or a file with a name on each "
        "line.",
    ),
)
_OUTPUT = (
    _Flag(
        "output_dir",
        None,
        "Folder for the shards: new, empty, or the output of an interrupted conversion, which is resumed.",
        usual=True,
    ),
    _Flag(
        "encoding",
        "keep",
        "How images are stored: keep copies the bytes of files that decode to upright RGB and stores the "
        "others as PNG; jpeg, png and raw encode every image.",
        usual=True,
        choices=encoding_options.ENCODINGS,
    ),
    _Flag(
        "image_size",
        0,
        "Height and width in pixels to which images are resized before they are stored; 0 keeps their sizes.",
        usual=True,
    ),
    _Flag(
        "fit",
        "resize",
        "How images of other aspect ratios are resized to --image_size: resize stretches them, crop cuts out "
        "the centre, pad adds black borders.",
        usual=True,
        choices=encoding_options.FITS,
    ),
    _Flag("quality", 95, "JPEG quality for --encoding=jpeg, 1 to 100.", usual=True),
    _Flag(
        "alpha",
        rgb.DROP,
        "Background of transparent images: a colour, such as white, black or #80ff00, or drop to ignore "
        "transparency.",
    ),
    _Flag(
        "depth",
        rgb.HIGH_BYTE,
        "How to store grayscale images of more than 8 bits: high_byte keeps the upper 8 of 16 bits; "
        "LOW:HIGH, such as 0:4095, scales this range to 0..255.",
    ),
    _Flag(
        "damaged",
        "reject",
        "What to do with JPEGs without an end marker or with stray bytes before it whose pixels are "
        "complete: reject or accept them.",
        choices=rgb.DAMAGED,
    ),
    _Flag("name", None, "Name of the data set; by default the name of the input folder."),
    _Flag("shard_mb", 128, "Maximum size of a shard in megabytes."),
    _Flag("num_shards", 0, "Number of shards per split; 0 derives it from --shard_mb."),
    _Flag("seed", 0, "Random seed for the order of images in the shards and for --split."),
)
_RUN = (
    _Flag("dry_run", False, "Print what would be written, and write nothing.", usual=True),
    _Flag(
        "append",
        False,
        "Write the images that are new in --input_dir as additional shards of --output_dir.",
        usual=True,
    ),
    _Flag("repair", False, "Rebuild only the damaged files of --output_dir from the images.", usual=True),
    _Flag("workers", 0, "Number of worker processes; 0 for one per core.", usual=True),
    _Flag(
        "slice",
        "",
        "Write only part I of N of the shards, such as 0/4, on one of N machines that share --output_dir; "
        "the same command without --slice completes the folder.",
    ),
    _Flag(
        "runner",
        "local",
        "What writes the shards: local processes, or beam for Apache Beam (pip install 'deepduel[beam]'), "
        "which writes the same bytes.",
        choices=("local", "beam"),
    ),
    _Flag(
        "beam_options",
        "",
        "With --runner=beam: options of Apache Beam, such as '--runner=DirectRunner --direct_num_workers=2'.",
    ),
)
# Recorded where they are not the default: repair and append need them again.
DECIDE_INPUT = (
    "metadata", "label_columns", "path_column", "base_dir", "path_suffix", "metadata_encoding", "missing",
    "merge", "class_order", "include", "exclude",
)  # fmt: skip
_GROUPS = {"Input": _INPUT, "Labels": _LABELS, "Output": _OUTPUT, "Run": _RUN}
USUAL = {group: tuple(flag.name for flag in rows if flag.usual) for group, rows in _GROUPS.items()}
FURTHER = {group: tuple(flag.name for flag in rows if not flag.usual) for group, rows in _GROUPS.items()}


def define(flag_values: flags.FlagValues) -> None:
    """Defines all flags of `convert`."""
    for flag in (*_INPUT, *_LABELS, *_OUTPUT, *_RUN):
        name, default, text, _, choices = flag
        if choices:
            flags.DEFINE_enum(name, default, choices, text, flag_values=flag_values)
        elif isinstance(default, bool):
            flags.DEFINE_boolean(name, default, text, flag_values=flag_values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, text, flag_values=flag_values)
        elif isinstance(default, float):
            flags.DEFINE_float(name, default, text, flag_values=flag_values)
        else:
            flags.DEFINE_string(name, default, text, flag_values=flag_values)
    flags.DEFINE_alias("input", "input_dir", flag_values=flag_values)
