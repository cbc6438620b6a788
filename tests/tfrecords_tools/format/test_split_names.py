import pytest

from tfrecords_tools.format import split_names


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (
            "train",
            "train Train TRAIN training training_set trainingSet TrainSet train2017 train_images train-data "
            "trn",
        ),
        (
            "validation",
            "val Val valid Valid validation VALIDATION dev eval val2017 valid_set validation_data",
        ),
        ("test", "test TEST testing test_set testSet test2 test1 Test_Images"),
        (
            None,
            "trains train_station test_tube valve value developer evaluated tester cats 2017 extra _ déjà",
        ),
    ],
)
def test_names_say_which_kind_of_split_they_are(role, names):
    assert {name: split_names.role(name) for name in names.split()} == dict.fromkeys(names.split(), role)


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (["Train", "Valid", "TEST"], "validation", "Valid"),
        (["Train", "Valid", "TEST"], "test", "TEST"),
        (["training_set", "test_set"], "train", "training_set"),
        (["val", "dev"], "validation", None),
        (["val", "validation"], "validation", "validation"),
        (["extra"], "extra", "extra"),
        (["train"], "validation", None),
    ],
)
def test_a_split_is_found_by_its_name_or_else_by_its_kind(names, wanted, found):
    assert split_names.find(names, wanted) == found
