"""An attacker who reaches the example's server: no request makes it fail, and a session ends at sign-out."""

import json
import secrets
import time
from collections.abc import Iterator

import boto3
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.photo_wall.app import create_app
from nexus.testing import run_task
from revoke_user_tokens import revoke_user_tokens
from social import application
from social.data import posts, sessions, users
from tests.support import moto_cloud
from tests.support.template import STACK

KEY = secrets.token_hex(16)


@pytest.fixture(scope="module", autouse=True)
def cloud() -> Iterator[None]:
    with moto_cloud.deployment():
        boto3.client("secretsmanager").create_secret(Name=f"{STACK}-mail-signing", SecretString=KEY)
        yield


def browser() -> FlaskClient:
    app = create_app(KEY)
    app.logger.disabled = True
    return app.test_client()


def register() -> tuple[FlaskClient, str]:
    """Somebody new, signed in, and their id."""
    client, email = browser(), f"{secrets.token_hex(8)}@example.com"
    assert client.post("/register", data={"name": "Ada", "email": email}).status_code == 302
    (user_id,) = users.by_email(email)
    return client, user_id


def stolen_from(client: FlaskClient) -> FlaskClient:
    """Another browser with the same cookie."""
    cookie = client.get_cookie("photo_wall")
    assert cookie is not None
    thief = browser()
    thief.set_cookie("photo_wall", cookie.value)
    return thief


def signed_in(client: FlaskClient) -> bool:
    status = client.post("/photos", json={}).status_code
    assert status in (401, 422)
    return status == 422


# --- sessions --------------------------------------------------------------------------------------------------------


def test_signing_out_ends_a_stolen_cookie_too() -> None:
    client, user_id = register()
    thief = stolen_from(client)
    assert signed_in(thief)

    client.post("/sign-out")

    assert not signed_in(thief)
    assert b"register" in thief.get("/").data
    assert (sessions.sessions_of(user_id), sessions.tokens_of(user_id)) == ([], [])


def test_signing_out_leaves_the_users_other_devices_signed_in() -> None:
    client, user_id = register()
    other = application.record_login(user_id, "other-token")

    client.post("/sign-out")

    assert application.is_signed_in(user_id, other.session_id)
    assert sessions.tokens_of(user_id) == ["other-token"]


def test_revoking_a_users_tokens_ends_a_stolen_cookie_too() -> None:
    client, user_id = register()
    thief = stolen_from(client)

    run_task(revoke_user_tokens, {"user_id": user_id})

    assert not signed_in(thief)
    assert not signed_in(client)


def test_a_session_that_the_revocation_has_not_reached_yet_is_refused_by_its_time() -> None:
    """Given a task that has marked the user, and died before it deleted the session."""
    client, user_id = register()
    assert users.refuse_tokens_before(user_id, int(time.time()) + 1)

    assert sessions.sessions_of(user_id)
    assert not signed_in(client)


def test_an_expired_session_and_one_of_a_deleted_user_are_invalid() -> None:
    client, user_id = register()
    (session_id,) = sessions.sessions_of(user_id)
    later = time.time() + (application.SESSION_DAYS + 1) * 86_400
    assert application.is_signed_in(user_id, session_id)
    assert not application.is_signed_in(user_id, session_id, at=later)

    users.TABLE.delete({"user_id": user_id})

    assert not application.is_signed_in(user_id, session_id)
    assert not signed_in(client)


def test_a_forged_cookie_belongs_to_no_user() -> None:
    client, user_id = register()
    forger = create_app("another key")
    with forger.test_client() as forging, forging.session_transaction() as session:
        session.update(user_id=user_id, session_id=sessions.sessions_of(user_id)[0], day="2026-01-01")
    forged = forging.get_cookie("photo_wall")
    assert forged is not None
    thief = browser()
    thief.set_cookie("photo_wall", forged.value)
    assert signed_in(client)
    assert not signed_in(thief)


# --- whatever is sent ------------------------------------------------------------------------------------------------

NASTY = (
    *("\ud800", "a\udfffb", "\x00", "\ufffe", "${filename}", "../../x", "a/b"),
    *("x" * 5000, "\r\nSet-Cookie: a=b"),
)
TEXTS = st.one_of(st.text(st.characters(), max_size=30), st.sampled_from(NASTY))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
PHOTOS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.just("a.jpg"), TEXTS, VALUES),
        "type": st.one_of(st.just("image/jpeg"), TEXTS.map(lambda text: f"image/{text}"), VALUES),
        "size": st.one_of(st.just(10), VALUES),
        "caption": st.one_of(TEXTS, VALUES),
    },
)
anything = settings(max_examples=80)


@pytest.fixture(scope="module")
def ada(cloud: None) -> FlaskClient:
    return register()[0]


@anything
@given(st.one_of(PHOTOS, VALUES))
def test_json_of_any_content_causes_no_server_error(ada: FlaskClient, body: object) -> None:
    answer = ada.post("/photos", data=json.dumps(body), content_type="application/json")
    assert answer.status_code in (201, 413, 422), answer.status


@pytest.mark.parametrize("nested", ["[" * 30_000, '{"a":' * 10_000, "[" * 30_000 + "]" * 30_000])
def test_deeply_nested_json_is_refused_without_a_server_error(ada: FlaskClient, nested: str) -> None:
    assert ada.post("/photos", data=nested, content_type="application/json").status_code == 422


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe", b'"\xed\xa0\x80"', b"1e999999", b"NaN", b'{"name":"a.jpg","name":7}', b"9" * 10_000]
)
def test_any_bytes_cause_no_server_error(ada: FlaskClient, raw: bytes) -> None:
    assert ada.post("/photos", data=raw, content_type="application/json").status_code == 422
    assert ada.post("/photos", data=raw, content_type="application/json; charset=utf-16").status_code == 422


def test_a_lone_surrogate_in_a_caption_is_refused_and_leaves_no_post() -> None:
    client, user_id = register()
    photo = {"name": "a.jpg", "type": "image/jpeg", "size": 10, "caption": "\ud800"}
    answer = client.post("/photos", data=json.dumps(photo), content_type="application/json")
    assert (answer.status_code, answer.get_json()) == (422, {"error": "The caption is not text."})
    assert sum(page.scanned for page in posts.count_by(user_id)) == 0


@anything
@given(TEXTS, TEXTS)
def test_any_form_causes_no_server_error(name: str, email: str) -> None:
    form = {"name": name.encode(errors="surrogatepass"), "email": f"{email}@example.com".encode(errors="surrogatepass")}
    assert browser().post("/register", data=form).status_code in (302, 413, 422)


@anything
@given(st.binary(max_size=60), st.sampled_from(["photos", "media", "posts", "static", "settings", "mail"]))
def test_any_url_causes_no_server_error(ada: FlaskClient, path: bytes, where: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in path)
    for address in (f"/{where}/{escaped}", f"/mail/unsubscribe?token={escaped}", f"/?{escaped}={escaped}"):
        assert ada.get(address).status_code < 500


def test_an_id_longer_than_any_key_is_not_found(ada: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "get", lambda *_, **__: pytest.fail("DynamoDB refuses a key of that size"))
    assert ada.get(f"/photos/{'x' * 4000}").status_code == 404
