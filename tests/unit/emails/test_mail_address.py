"""An address is normalised to the form that SES accepts, or refused with the reason; never passed on unchecked."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.address import BadAddress, checked_address
from tests.support.template import template


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
def test_a_valid_address_is_normalised(given_address: str, mailed: str) -> None:
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


@given(st.text(max_size=80))
def test_no_checked_address_can_carry_a_header(text: str) -> None:
    try:
        mailed = checked_address(text)
    except BadAddress:
        return
    assert mailed.isascii()
    assert mailed.isprintable()
    assert mailed.count("@") == 1
    assert not set(mailed) & set(' ,;:<>()[]\\"\r\n\t')
    assert checked_address(mailed) == mailed


SENDERS = ("SenderAddress", "DigestSenderAddress")


def admits(parameter: str, value: str) -> bool:
    """Whether CloudFormation takes the value for the parameter."""
    return re.fullmatch(template()["Parameters"][parameter]["AllowedPattern"], value) is not None


@pytest.mark.parametrize("parameter", SENDERS)
@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("no-reply@example.com", True),
        ("No.Reply+news@mail-1.example.co.uk", True),
        ("hello@xn--mnchen-3ya.example", True),
        ("no-reply@Example.com", False),
        ("no-reply@EXAMPLE.COM", False),
        ("hello@münchen.example", False),
        ("hello@ｅxample.com", False),
        (" no-reply@example.com", False),
        ("no-reply@example.com ", False),
        ("Nexus <no-reply@example.com>", False),
        ("no-reply", False),
    ],
)
def test_a_sender_is_deployed_only_in_the_form_that_iam_compares(parameter: str, address: str, admitted: bool) -> None:
    """The role may send from the parameter's value, and the function sends from the checked address."""
    assert admits(parameter, address) is admitted
    if admitted:
        assert checked_address(address) == address


def test_the_digests_sender_alone_may_be_empty() -> None:
    assert [admits(parameter, "") for parameter in SENDERS] == [False, True]
    assert all(admits(parameter, template()["Parameters"][parameter]["Default"]) for parameter in SENDERS)


@given(
    st.one_of(
        st.from_regex(re.compile(r"[a-zA-Z.+]{1,8}@[a-zA-Z0-9.-]{1,12}\.[a-zA-Z]{2,3}"), fullmatch=True),
        st.from_regex(re.compile(template()["Parameters"]["SenderAddress"]["AllowedPattern"]), fullmatch=True),
    )
)
def test_a_sender_that_the_template_accepts_is_used_unchanged(address: str) -> None:
    if not admits("SenderAddress", address):
        return
    try:
        checked = checked_address(address)
    except BadAddress:
        return  # reported, with the variable's name, before anything is sent
    assert checked == address
