"""The unsubscribe link: it works only for its user, until it expires, and cannot be forged."""

import time

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from social import mail_links
from social.data import users
from social.mail_links import InvalidToken
from tests.support.template import STACK
from tests.unit.emails.conftest import Ses, person


@pytest.fixture(autouse=True)
def _deployed(ses: Ses) -> None:
    """Each test has the signing key."""


def test_the_link_turns_the_digest_off_and_a_second_click_changes_nothing() -> None:
    person("ada")
    token = mail_links.token_for("ada")

    assert mail_links.verify(token).user_id == "ada"
    assert users.get("ada").digest, "looking at the page unsubscribes nobody"  # type: ignore[union-attr]
    for _ in range(2):
        assert mail_links.unsubscribe(token).mailing == "digest"
        assert not users.get("ada").digest  # type: ignore[union-attr]


def test_unsubscribing_a_deleted_user_succeeds() -> None:
    assert mail_links.unsubscribe(mail_links.token_for("nobody")).user_id == "nobody"
    assert users.get("nobody") is None


def test_a_token_expires() -> None:
    now = time.time()
    token = mail_links.token_for("ada", now=now)
    assert mail_links.verify(token, now=now + mail_links.LIFETIME - 1).user_id == "ada"
    with pytest.raises(InvalidToken, match="expired"):
        mail_links.verify(token, now=now + mail_links.LIFETIME + 1)


@settings(max_examples=80)
@given(st.text(min_size=1, max_size=128), st.data())
def test_a_token_with_one_character_changed_is_worth_nothing(user_id: str, data: st.DataObject) -> None:
    try:
        user_id.encode()
    except UnicodeEncodeError:
        return
    token = mail_links.token_for(user_id)
    assert mail_links.verify(token).user_id == user_id
    assert len(token) < 870, "it has to fit into a header of SES"
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from("Aa0-_.=é \n"))
    changed = token[:place] + character + token[place + 1 :]
    if changed != token:
        with pytest.raises(InvalidToken):
            mail_links.verify(changed)


@given(st.text(max_size=200))
@settings(max_examples=60)
def test_any_other_text_is_not_a_token(text: str) -> None:
    with pytest.raises(InvalidToken):
        mail_links.verify(text)


def test_a_rotation_keeps_the_links_that_are_out_and_a_second_one_ends_them() -> None:
    secrets, name = boto3.client("secretsmanager"), f"{STACK}-mail-signing"
    token = mail_links.token_for("ada")

    for key, works in (("second", True), ("third", False)):
        secrets.put_secret_value(SecretId=name, SecretString=key * 10)
        mail_links.forget_keys()
        if works:
            assert mail_links.verify(token).user_id == "ada"
        else:
            with pytest.raises(InvalidToken, match="not signed"):
                mail_links.verify(token)


def test_another_stacks_token_is_worth_nothing_here() -> None:
    token = mail_links.token_for("ada")
    boto3.client("secretsmanager").put_secret_value(SecretId=f"{STACK}-mail-signing", SecretString="other")
    boto3.client("secretsmanager").put_secret_value(SecretId=f"{STACK}-mail-signing", SecretString="another")
    mail_links.forget_keys()
    with pytest.raises(InvalidToken):
        mail_links.unsubscribe(token)
