"""An attacker who controls the media function: what its role's real credentials allow, and what they refuse."""

import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from nexus.aws.sdk import is_refused
from nexus.settings import Settings, settings
from tests.support.patience import eventually

Clients = Callable[[str], Any]
QUEUES = ("emails", "users", "analytics", "maintenance", "default")


@pytest.fixture(scope="module")
def media(stack: Settings) -> Clients:
    """Clients with the credentials of the media function's role."""
    found = [role for role in boto3.client("iam").list_roles()["Roles"] if "MediaRole" in role["RoleName"]]
    (role,) = [one for one in found if one["RoleName"].startswith(stack.stack)]
    granted = boto3.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="attacker")["Credentials"]
    session: Any = boto3.Session(granted["AccessKeyId"], granted["SecretAccessKey"], granted["SessionToken"])
    clients: Clients = session.client
    return clients


def refused(call: Callable[[], object]) -> bool:
    """Whether IAM refuses it. Any other error is a test that asks for nothing, and passes."""
    try:
        call()
    except ClientError as error:
        if not is_refused(error):
            raise
        return True
    return False


@pytest.fixture
def upload(stack: Settings) -> tuple[str, str]:
    """Somebody's original, which no event goes with: its key and its version."""
    key = f"uploads/victim/p-{uuid.uuid4().hex}/holiday.jpg"
    bucket = stack.bucket("uploads")
    version = boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"original")["VersionId"]
    return key, version


def test_uploads_cannot_be_listed(media: Clients) -> None:
    bucket, s3 = settings().bucket("uploads"), media("s3")
    assert refused(lambda: s3.list_objects_v2(Bucket=bucket))
    assert refused(lambda: s3.list_objects_v2(Bucket=bucket, Prefix="uploads/"))
    assert refused(lambda: s3.list_object_versions(Bucket=bucket))


def test_an_original_cannot_be_deleted_for_good_or_replaced(media: Clients, upload: tuple[str, str]) -> None:
    bucket, (key, version), s3 = settings().bucket("uploads"), upload, media("s3")

    assert refused(lambda: s3.delete_object(Bucket=bucket, Key=key, VersionId=version))
    assert refused(lambda: s3.put_object(Bucket=bucket, Key=key, Body=b"another"))

    s3.delete_object(Bucket=bucket, Key=key)  # what quarantine does: a marker, and the original under it
    kept = boto3.client("s3").get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()
    assert kept == b"original"


@pytest.mark.parametrize(
    "key",
    ["media/p/hash/page.html", "media/p/hash/script.js", "media/p/hash/drawing.svg", "index.html", "uploads/x.webp"],
)
def test_the_cdns_origin_takes_nothing_but_renditions(key: str, media: Clients) -> None:
    bucket, s3 = settings().bucket("media"), media("s3")
    assert refused(lambda: s3.put_object(Bucket=bucket, Key=key, Body=b"<script>", ContentType="text/html"))


def test_renditions_cannot_be_read_listed_or_deleted(media: Clients) -> None:
    bucket, s3 = settings().bucket("media"), media("s3")
    key = f"media/p-{uuid.uuid4().hex}/hash/w320.webp"
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"RIFF")
    assert refused(lambda: s3.get_object(Bucket=bucket, Key=key))
    assert refused(lambda: s3.delete_object(Bucket=bucket, Key=key))
    assert refused(lambda: s3.list_objects_v2(Bucket=bucket, Prefix="media/"))


@pytest.mark.parametrize("attribute", ["text", "author_id", "visibility", "likes_count", "hashtags", "feed_rank"])
def test_a_post_keeps_what_its_author_wrote(attribute: str, media: Clients, post: str) -> None:
    dynamodb = media("dynamodb")
    written: dict[str, Any] = {"TableName": settings().table("posts"), "Key": {"post_id": {"S": post}}}
    value = {":v": {"N": "1"} if attribute in ("likes_count", "feed_rank") else {"S": "mine"}}
    named: dict[str, Any] = {"UpdateExpression": "SET #a = :v", "ExpressionAttributeNames": {"#a": attribute}}
    plain = {"UpdateExpression": f"SET media = :v, {attribute} = :v"}
    for how in (named, plain):
        assert refused(lambda how=how: dynamodb.update_item(**written, **how, ExpressionAttributeValues=value))  # type: ignore[misc]
    whole = {"ReturnValues": "ALL_OLD"}
    media_alone: dict[str, Any] = {"UpdateExpression": "SET media = :v", "ExpressionAttributeValues": {":v": {"M": {}}}}
    assert refused(lambda: dynamodb.update_item(**written, **media_alone, **whole))


@pytest.mark.parametrize("action", ["scan", "put_item", "delete_item"])
def test_posts_cannot_be_scanned_replaced_or_deleted(action: str, media: Clients, post: str) -> None:
    table, key = settings().table("posts"), {"post_id": {"S": post}}
    requests: dict[str, dict[str, Any]] = {
        "scan": {"TableName": table},
        "put_item": {"TableName": table, "Item": key},
        "delete_item": {"TableName": table, "Key": key},
    }
    dynamodb = media("dynamodb")
    assert refused(lambda: getattr(dynamodb, action)(**requests[action]))


@pytest.mark.parametrize("entity", ["users", "sessions", "tokens", "mail-ledger", "notifications", "analytics"])
def test_other_tables_are_closed(entity: str, media: Clients) -> None:
    dynamodb = media("dynamodb")
    assert refused(lambda: dynamodb.scan(TableName=settings().table(entity)))


def test_run_records_cannot_be_listed_or_deleted(media: Clients) -> None:
    dynamodb, table = media("dynamodb"), settings().table("task-runs")
    assert refused(lambda: dynamodb.scan(TableName=table))
    assert refused(lambda: dynamodb.delete_item(TableName=table, Key={"id": {"S": "x"}}))


@pytest.mark.parametrize("queue", [*QUEUES, *(f"{name}-dead" for name in QUEUES)])
def test_other_queues_are_closed(queue: str, media: Clients, outputs: dict[str, str]) -> None:
    name = queue.removesuffix("-dead").capitalize() + ("DeadLetterQueueUrl" if queue.endswith("-dead") else "QueueUrl")
    sqs = media("sqs")
    assert refused(lambda: sqs.send_message(QueueUrl=outputs[name], MessageBody="{}"))
    assert refused(lambda: sqs.receive_message(QueueUrl=outputs[name]))


def test_no_schedule_can_be_made_and_no_role_passed_on(
    media: Clients, outputs: dict[str, str], stack: Settings
) -> None:
    scheduler = media("scheduler")
    target = {
        "Arn": f"arn:aws:sqs:eu-west-1:{stack.account_id}:{stack.stack}-media",
        "RoleArn": outputs["SchedulerRoleArn"],
    }
    assert refused(
        lambda: scheduler.create_schedule(
            Name=f"a-{uuid.uuid4().hex}",
            GroupName=outputs["ScheduleGroupName"],
            ScheduleExpression="rate(1 hour)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target=target,
        )
    )


def test_the_archive_cannot_be_listed_or_read_and_others_results_not_written(media: Clients) -> None:
    bucket, s3 = settings().bucket("archive"), media("s3")
    assert refused(lambda: s3.list_objects_v2(Bucket=bucket))
    assert refused(lambda: s3.list_objects_v2(Bucket=bucket, Prefix="results/"))
    for key in ("posts/x", "digest/x", "work/x", "media/x"):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"{}")
        assert refused(lambda key=key: s3.get_object(Bucket=bucket, Key=key))  # type: ignore[misc]
        assert refused(lambda key=key: s3.put_object(Bucket=bucket, Key=key, Body=b"{}"))  # type: ignore[misc]
    assert refused(lambda: s3.put_object(Bucket=bucket, Key="results/users/x.json", Body=b"{}"))


def test_nothing_else_of_the_account_is_in_reach(media: Clients, stack: Settings) -> None:
    assert refused(lambda: media("secretsmanager").get_secret_value(SecretId=f"{stack.stack}-mail-signing"))
    assert refused(lambda: media("iam").list_roles())
    assert refused(lambda: media("lambda").invoke(FunctionName=f"{stack.stack}-emails"))


def test_the_media_role_may_do_what_the_function_needs(media: Clients, post: str, upload: tuple[str, str]) -> None:
    """A role that may do nothing would pass all of the above."""
    key, _ = upload
    s3, dynamodb = media("s3"), media("dynamodb")
    assert s3.get_object(Bucket=settings().bucket("uploads"), Key=key)["Body"].read() == b"original"
    s3.put_object(Bucket=settings().bucket("media"), Key=f"media/{post}/hash/w320.webp", Body=b"RIFF")
    dynamodb.update_item(
        TableName=settings().table("posts"),
        Key={"post_id": {"S": post}},
        UpdateExpression="SET media = :m",
        ExpressionAttributeValues={":m": {"M": {"status": {"S": "processing"}}}},
    )


def test_an_upload_that_is_gone_is_no_error_to_a_role_that_may_not_list(post: str, outputs: dict[str, str]) -> None:
    """S3 tells such a role that a missing object is forbidden."""
    from social import catalogue

    handle = catalogue.process_media_upload.delay(
        bucket=settings().bucket("uploads"), key=f"uploads/u-e2e/{post}/never-there.jpg"
    )
    assert eventually(lambda: handle.status in ("RETRY", "SUCCESS"))
    handle.revoke()
