import pytest

from tests.helpers import folders
from tests.helpers.conversions import convert_to, stored
from tests.tfrecords_tools.listing.test_folder import touch
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest
from tfrecords_tools.listing import choice, folder
from tfrecords_tools.listing.choice import Choice
from tfrecords_tools.listing.label_file import LabelFileOptions


def keys(root, **options):
    listing = folder.scan(root, choice=Choice(**options), allow_missing_classes=True)
    return [example.key.decode() for example in listing.examples()], listing


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"include": ("cats",)}, ["cats/1.jpg", "cats/2.png"]),
        ({"include": ("c*",), "exclude": ("*.png",)}, ["cats/1.jpg"]),
        ({"exclude": ("dogs", "cats/2.*")}, ["cats/1.jpg"]),
        ({"include": ("*/1.jpg",)}, ["cats/1.jpg", "dogs/1.jpg"]),
    ],
)
def test_patterns_choose_paths_and_directories(tmp_path, options, taken):
    touch(tmp_path, "cats/1.jpg", "cats/2.png", "dogs/1.jpg", "dogs/notes.txt")
    actual, listing = keys(tmp_path, **options)
    assert actual == taken
    assert len(listing) + len(listing.skipped) == 4


def test_patterns_choose_classes_of_a_file(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "metadata.csv").write_text("path,class\n1.jpg,cats\n2.jpg,dogs\n3.jpg,owls\n")
    assert keys(tmp_path, include=("cats", "o*"))[0] == ["1.jpg", "3.jpg"]
    actual, listing = keys(tmp_path, exclude=("cats",))
    assert actual == ["2.jpg", "3.jpg"] and listing.axes == {"category": ("dogs", "owls")}
    with pytest.raises(DataError, match="--include=horses and --exclude= leave no image"):
        keys(tmp_path, include=("horses",))


def test_a_pattern_that_matches_nothing_is_pointed_out(tmp_path):
    touch(tmp_path, "cats/1.jpg", "dogs/1.jpg", "dogs/notes.txt")
    (tmp_path / "metadata.csv").write_text("path,mood\ncats/1.jpg,glad\ndogs/1.jpg,calm\n")
    options = LabelFileOptions(label_columns={"category": "mood"})
    taken = Choice(include=("cats", "dgos", "*.jpg"), exclude=("*.txt", "glad", "sad"))
    listing = folder.scan(tmp_path, labels=options, choice=taken)
    assert listing.notes == [
        "warning: --include=dgos matches no path and no class",
        "warning: --exclude=sad matches no path and no class",
    ]


def test_an_excluded_directory_disturbs_neither_layout_nor_classes(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "extra/deep/x/1.jpg", "train/notes/1.txt")
    _, listing = keys(tmp_path, exclude=("extra", "notes"))
    assert listing.layout.template == "{split}/{category}" and listing.axes == {"category": ("a",)}


def test_classes_are_merged_and_splits_renamed(tmp_path):
    images = folders.make(
        tmp_path / "in", {f"{s}/{c}": 1 for s in ("part1", "part2", "test") for c in ("lion", "cat", "dog")}
    )
    words = "--layout={split}/{category}", "--merge=lion,cat:felid;part1,part2:train"
    assert convert_to(tmp_path / "out", images, *words) == 0
    whole = manifest.load(tmp_path / "out")
    assert whole.axes == {"category": ("dog", "felid")}
    assert whole.splits["train"].cells == {"dog": 2, "felid": 4} and set(whole.splits) == {"test", "train"}
    with pytest.raises(DataError, match="--merge=wolf:dog: there is no class or split 'wolf'"):
        folder.scan(images, layout="{split}/{category}", choice=Choice(merge={"wolf": "dog"}))


@pytest.mark.parametrize("text", ["lion", "lion:", ":cat", "a,:b", "a:b;a:c"])
def test_a_merge_checks_itself(text):
    with pytest.raises(UsageError, match="--merge="):
        choice.parse_merge(text.split(";"))


def test_classes_are_numbered_naturally_or_as_a_file_says(tmp_path):
    touch(tmp_path / "in", *(f"c{number}/1.jpg" for number in (1, 2, 10)))
    assert keys(tmp_path / "in")[1].axes["category"] == ("c1", "c10", "c2")
    assert keys(tmp_path / "in", order="natural")[1].axes["category"] == ("c1", "c2", "c10")
    order = tmp_path / "order.txt"
    order.write_text("c2\nc10\nc1\nc7\n")
    assert keys(tmp_path / "in", order=str(order))[1].axes["category"] == ("c2", "c10", "c1", "c7")
    order.write_text("c2\nc10\n")
    with pytest.raises(DataError, match="it lacks the class 'c1'"):
        keys(tmp_path / "in", order=str(order))
    order.write_text("c2\nc10\nc1\nc10\n")
    with pytest.raises(DataError, match="the class 'c10' occurs twice"):
        keys(tmp_path / "in", order=str(order))
    with pytest.raises(DataError, match="cannot be read"):
        keys(tmp_path / "in", order=str(tmp_path / "nothing.txt"))


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{category}_*.jpg", {"great_dane": 1, "pug": 2}),
        ("*/{category}_*.jpg", {"pug": 1}),
        ("**/{category}", {"x": 1, "deep": 1}),
    ],
)
def test_labels_come_from_file_names_and_from_the_deepest_directory(tmp_path, template, names):
    touch(tmp_path, "great_dane_12.jpg", "pug_1.jpg", "x/pug_2.jpg", "x/deep/3.jpg")
    listing = folder.scan(tmp_path, layout=template)
    if "**" not in template and "/" not in template:
        names = names | {}
    counts = {}
    for example in listing.examples():
        name = listing.axes["category"][example.labels["category"]]
        counts[name] = counts.get(name, 0) + 1
    assert counts == names


def test_a_conversion_with_chosen_images_is_repaired_by_the_command_that_verify_prints(tmp_path, capsys):
    from tests.conftest import run_command
    from tfrecords_tools import verify

    images = folders.make(tmp_path / "in", {"lion": 2, "tiger": 2, "dog": 2, "junk": 1})
    assert convert_to(tmp_path / "out", images, "--merge=lion,tiger:cat", "--exclude=junk") == 0
    before = folders.sums(tmp_path / "out")
    next((tmp_path / "out").glob("*.tfrecord-*-of-00001")).write_bytes(b"damaged")
    assert run_command(verify, f"--data_dir={tmp_path}/out", "--workers=1") == 1
    command = capsys.readouterr().err
    assert "--merge=lion,tiger:cat" in command and "--exclude=junk" in command
    words = [
        word.strip("'") for word in command.split() if word.startswith(("--merge", "--exclude", "--name"))
    ]
    assert convert_to(tmp_path / "out", images, "--repair", *words) == 0
    assert folders.sums(tmp_path / "out") == before and len(stored(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    "text",
    [
        "cats/1.jpg\ndogs/a, b [1].jpg\n",
        "\ufeffcats/1.jpg\r\n./dogs/a, b [1].jpg\r\n\r\n",
        'task,key,label\ncategory,cats/1.jpg,cats\ncategory,"dogs/a, b [1].jpg",dogs\n',
        'file_name\n./cats/1.jpg\n"dogs/a, b [1].jpg"\n',
    ],
)
def test_a_file_lists_the_images_to_leave_out_by_their_paths_not_patterns(tmp_path, text):
    images = tmp_path / "images"
    touch(images, "cats/1.jpg", "cats/1.png", "cats/11.jpg", "dogs/a, b [1].jpg", "dogs/a, b 1.jpg")
    (tmp_path / "list").write_text(text, "utf-8")
    patterns, paths = choice.parse_exclude(f"*.png,@{tmp_path / 'list'}")
    actual, listing = keys(images, exclude=patterns, excluded=paths)
    assert actual == ["cats/11.jpg", "dogs/a, b 1.jpg"]
    assert listing.notes == ["2 of the 2 paths that --exclude lists are left out"]


def test_a_list_that_leaves_out_nothing_is_warned_of_and_one_that_is_missing_is_an_error(tmp_path):
    touch(tmp_path / "images", "cats/1.jpg", "dogs/1.jpg")
    (tmp_path / "list").write_text("images/cats/1.jpg\n")
    _, listing = keys(tmp_path / "images", excluded=choice.parse_exclude(f"@{tmp_path / 'list'}")[1])
    assert listing.notes == [
        "warning: 0 of the 1 paths that --exclude lists are left out: they must be relative to --input_dir"
    ]
    with pytest.raises(DataError, match=r"nowhere.csv: cannot be read \(No such file .*one on each line"):
        choice.parse_exclude("@nowhere.csv")
