import pytest


@pytest.fixture(autouse=True)
def networks(real_networks) -> None:
    """These tests are about networks."""
