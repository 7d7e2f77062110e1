"""An address is normalised to the form that SES accepts, or refused with the reason; never passed on unchecked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.address import BadAddress, checked_address


@pytest.mark.parametrize(
    ("given_address", "mailed"),
    [
        ("ada@example.com", "ada@example.com"),
        (" ada@example.com ", "ada@example.com"),
        ("Ada.Lovelace+nexus@Example.COM", "Ada.Lovelace+nexus@example.com"),
        ("ada@münchen.example", "ada@xn--mnchen-3ya.example"),
        ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
        ("o'hara@example.com", "o'hara@example.com"),
    ],
)
def test_a_good_address_is_mailed(given_address: str, mailed: str) -> None:
    assert checked_address(given_address) == mailed


@pytest.mark.parametrize(
    "address",
    [
        "",
        "   ",
        "ada",
        "@example.com",
        "ada@",
        "ada@example",
        "ada@example..com",
        "a@b.co.",
        "ada@example.com\u3002",
        "ada@-example.com",
        "ada@[127.0.0.1]",
        "ada@127.0.0.1",
        "ada..lovelace@example.com",
        ".ada@example.com",
        "ada@b@example.com",
        '"ada"@example.com',
        "ada@exa mple.com",
        "ädä@example.com",
        "ada@example.com\nBcc: victim@example.com",
        "ada\r\nBcc: victim@example.com@example.com",
        "ada@example.com,victim@example.com",
        "ada@example.com;victim@example.com",
        "Ada <ada@example.com>",
        "ada@example.com\x00",
        "ada@exam\u202eple.com",
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "ada@" + "a.example." * 30 + "com",
    ],
)
def test_a_bad_address_is_refused_with_a_reason_that_does_not_repeat_it(address: str) -> None:
    with pytest.raises(BadAddress) as refused:
        checked_address(address)
    assert str(refused.value)
    if len(address.strip()) > 4:
        assert address not in str(refused.value)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_whatever_comes_in_nothing_that_could_be_a_header_goes_out(text: str) -> None:
    try:
        mailed = checked_address(text)
    except BadAddress:
        return
    assert mailed.isascii()
    assert mailed.isprintable()
    assert mailed.count("@") == 1
    assert not set(mailed) & set(' ,;:<>()[]\\"\r\n\t')
    assert checked_address(mailed) == mailed
