"""What `import deepduel` offers."""

import importlib

import pytest

import deepduel

MODULES = "pipeline", "augment", "order", "mixing", "errors"


@pytest.mark.parametrize("name", deepduel.__all__)
def test_every_public_name_is_that_of_a_public_module(name):
    modules = [importlib.import_module(f"deepduel.{module}") for module in MODULES]
    assert any(getattr(module, name, None) is getattr(deepduel, name) for module in modules)
    assert name in dir(deepduel)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'make_tea'"):
        _ = deepduel.make_tea


@pytest.mark.parametrize("module", MODULES)
def test_public_modules_offer_what_they_list(module):
    public = importlib.import_module(f"deepduel.{module}")
    assert all(hasattr(public, name) for name in public.__all__)
