"""Addresses in messages, without their passwords."""

from __future__ import annotations

import pytest

from pyramid_tasks.configuration.addresses import shown, without_secrets

URLS = ["redis://:s3cr3t@one/0", "redis://:p%2Fw@two/0"]


@pytest.mark.parametrize("value", [URLS, tuple(URLS), ";".join(URLS)])
def test_several_addresses(value: object) -> None:
    """No password is shown, in whichever form the addresses are set."""
    assert shown(value) == "redis://:**@one/0;redis://:**@two/0"
    text = without_secrets("not s3cr3t, not p%2Fw, and not p/w", value)
    assert text == "not **, not **, and not **"
    assert without_secrets("", "redis://:a/s3cr3t@one") == "it cannot be read"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("azureblockblob://a=b;AccountKey=s3cr3t", "azureblockblob://********"),
        ("'redis://:s3cr3t@one/0'", "********"),
        ("redis//:s3cr3t@one;redis://two", "********;redis://********"),
        ("my_class:Backend://:s3cr3t@one", "my_class:Backend://********"),
        ("redis://s3cr3t@one/0", "redis://**@one/0"),
        ("mongodb://u:s3cr3t@one:1,two:2/x", "mongodb://********"),
        ("localhost", "localhost"),
        ("cache+memcached://a:1;b:2/", "cache+memcached://a:1/;b:2/"),
    ],
)
def test_forms_of_an_address(url: str, text: str) -> None:
    """What may be a part of a password is not shown."""
    assert shown(url) == text
