import pytest
from absl import flags

from deepduel.reading import flags as read_flags
from deepduel.reading.options import ReadOptions
from deepduel.reading.order import Worker
from tfrecords_tools.errors import UsageError


def parsed(*words, names=read_flags.NAMES, **options):
    values = flags.FlagValues()
    read_flags.define(values, names, **options)
    values(["command", *words])
    return values


def test_without_flags_the_options_are_the_librarys_defaults():
    assert read_flags.build(parsed(), batch_size=8) == ReadOptions(8)


def test_every_flag_reaches_its_option():
    words = ["--reader=random", "--threads=3", "--on_error=skip", "--fast_decode", "--sampling=balanced"]
    words += ["--cache=ram", "--host_size=40", "--fit=pad"]
    assert read_flags.build(parsed(*words), batch_size=8) == ReadOptions(
        8, (40, 40), "pad", True, "random", 3, "skip", "balanced", "ram"
    )


def test_a_commands_own_values_replace_those_of_flags():
    values = parsed("--reader=sequential", names=("reader",))
    options = read_flags.build(values, batch_size=8, size=(30, 20), fit="pad", cache="none")
    assert options == ReadOptions(8, (30, 20), "pad", reader="sequential")


@pytest.mark.parametrize("word", ["--host_size=40", "--fit=pad"])
def test_native_resolution_goes_with_no_other_size(word):
    assert read_flags.build(parsed("--native_resolution"), batch_size=8).fit == "native"
    with pytest.raises(UsageError, match="leave --host_size and --fit out"):
        read_flags.build(parsed("--native_resolution", word), batch_size=8)


def test_a_command_may_skip_bad_images_by_default():
    assert read_flags.build(parsed(on_error="skip"), batch_size=8).on_error == "skip"


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="must be some of .* got speed"):
        read_flags.define(flags.FlagValues(), ["speed"])


def test_data_workers_reach_their_option_and_a_clusters_parts_must_be_equal():
    reading = read_flags.build(parsed("--data_workers=cpu1:5050,cpu2:5050"), batch_size=8)
    assert reading.data_workers == ("cpu1:5050", "cpu2:5050")
    with pytest.raises(UsageError, match="must be a multiple of their number, 3; got 8"):
        read_flags.build(parsed(), batch_size=8, worker=Worker(0, 3))
