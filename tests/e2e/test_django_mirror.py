"""The Django example's rows in the network beside it: mirrored by its own function, counted by the network's tasks,
read back into its models, and erased with the user."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from dev.postgres import running
from social.catalogue import refresh_user_statistics
from social.data import follows, posts, users
from social.data.users import User
from tests.support.patience import PATIENCE, eventually

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "django"
SHARED = PROJECT.parents[1] / "shared"


def manage(*words: str, mirrored: bool = True) -> str:
    """Runs `manage.py` in its own process; its output. Without `mirrored`, as before the network was deployed."""
    server = running()
    assert server is not None, "PostgreSQL does not run: `make django-network` starts it"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
    patience = {name: os.environ[name] for name in ("NEXUS_SEND_TIMEOUT", "NEXUS_READ_TIMEOUT") if name in os.environ}
    database = {"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": str(server.port), "PYTHONPATH": str(SHARED)}
    network = {"SOCIAL_STACK": os.environ["NEXUS_STACK"] if mirrored else ""}
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        env={**kept, **patience, **database, **network},
        cwd=PROJECT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def shell(script: str, **options: Any) -> Any:
    """The value that a script in `manage.py shell` assigns to `answer`."""
    given = "import json\nfrom django.contrib.auth import get_user_model\nfrom users.models import Follow, Profile\n"
    given += f"from posts.models import Post\nUser = get_user_model()\n{script}\nprint(json.dumps(answer))"
    return json.loads(manage("shell", "-v0", "-c", given, **options))


MAKES = """
ada, bob = (User.objects.create_user(name) for name in {names!r})
Profile.objects.bulk_create([Profile(user=ada), Profile(user=bob)])
post = Post.objects.create(author=ada, text="From the #train", original=b"")
Follow.objects.create(follower=bob, followed=ada)
answer = [str(ada.pk), str(bob.pk), str(post.pk)]
"""


def mirrored_as(ada: str, bob: str, post: str) -> User:
    """Ada as the network has her, once it has her post and Bob's follow too; a busy machine's cold starts take long."""

    def whole() -> User | None:
        return users.get(ada) if posts.get(post) and ada in follows.followed_by(bob) else None

    return eventually(whole)


@pytest.mark.parametrize("mirrored", [True, False], ids=["mirrored", "filled in"])
def test_rows_are_mirrored_to_the_network_and_its_counts_are_read_back(mirrored: bool) -> None:
    names = [f"{name}-{uuid.uuid4().hex[:6]}" for name in ("ada", "bob")]
    ada, bob, post = shell(MAKES.format(names=names), mirrored=mirrored)
    if mirrored:
        assert ", kept 0" in manage("nexus_outbox")
    else:
        assert users.get(ada) is None
        assert "users: " in manage("social_backfill")

    there = mirrored_as(ada, bob, post)
    assert (there.name, there.email, there.suppressed) == (names[0], f"{ada}@example.invalid", "no address")
    found = posts.get(post)
    assert found is not None
    assert (found.author_id, found.hashtags) == (ada, ("train",))

    refresh_user_statistics.delay(user_id=ada).get(timeout=PATIENCE)
    assert "users.Profile: " in manage("social_read_back")
    profile = f"answer = list(Profile.objects.filter(user={ada}).values_list('followers_count', 'posts_count')[0])"
    assert shell(profile) == [1, 1]

    shell(f"User.objects.get(pk={ada}).delete()\nanswer = None")
    manage("nexus_outbox")
    eventually(lambda: users.get(ada) is None and follows.followed_by(bob) == [])
    eventually(lambda: posts.TABLE.get({"post_id": post}, consistent=True) is None)
