"""What `import deepduel` offers."""

import importlib

import pytest

import deepduel

MODULES = "api", "run", "pipeline", "augment", "order", "mixing", "errors"
CALLED = "fit", "train"  # modules that may be called


@pytest.mark.parametrize("name", sorted({*deepduel.__all__} - {*CALLED}))
def test_every_public_name_is_that_of_a_public_module(name):
    modules = [importlib.import_module(f"deepduel.{module}") for module in MODULES]
    assert any(getattr(module, name, None) is getattr(deepduel, name) for module in modules)
    assert name in dir(deepduel)


@pytest.mark.parametrize("name", CALLED)
def test_a_module_that_may_be_called_is_listed(name):
    assert getattr(deepduel, name) is importlib.import_module(f"deepduel.{name}")
    assert callable(getattr(deepduel, name)) and name in dir(deepduel) and name in deepduel.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'make_tea'"):
        _ = deepduel.make_tea


@pytest.mark.parametrize("module", MODULES)
def test_public_modules_offer_what_they_list(module):
    public = importlib.import_module(f"deepduel.{module}")
    assert all(hasattr(public, name) for name in public.__all__)
