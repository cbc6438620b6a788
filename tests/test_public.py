"""What `import deepduel` offers."""

import importlib

import pytest

import deepduel


@pytest.mark.parametrize("name", deepduel.__all__)
def test_every_public_name_is_that_of_its_module(name):
    module = importlib.import_module(deepduel._PUBLIC[name])
    assert getattr(deepduel, name) is getattr(module, name)
    assert name in dir(deepduel)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'make_tea'"):
        _ = deepduel.make_tea


@pytest.mark.parametrize("module", ["pipeline", "augment", "order", "mixing", "errors"])
def test_public_modules_offer_what_they_list(module):
    public = importlib.import_module(f"deepduel.{module}")
    assert all(hasattr(public, name) for name in public.__all__)
