import pytest

from deepduel.networks import backbones


@pytest.fixture(scope="module", autouse=True)
def networks():
    """These tests are about networks, so small_cnn is the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.OWN, "small_cnn", backbones.small_cnn)
        yield
