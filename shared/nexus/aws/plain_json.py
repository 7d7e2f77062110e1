"""DynamoDB's requests and answers as the JSON that they are.

Botocore walks over the shape of a request and of its answer, attribute by attribute. That costs half the CPU of a batch
of writes and ten times the decoding of a page, and changes nothing but binary attributes (of which this project has
none: they would stay base64 text) and the dates of DescribeTable and its kin (they stay seconds since 1970). All else,
connections, retries, signing, event hooks and errors, is botocore's as ever.
"""

from collections.abc import Mapping
from typing import Any

from botocore.parsers import JSONParser, ResponseParserFactory

from nexus.aws.encoding import dumps, loads


class PlainRequests:
    """The serializer of botocore's "json" protocol without the walk: parameters that hold no bytes and no dates."""

    @staticmethod
    def serialize_to_request(parameters: Mapping[str, Any], operation: Any) -> dict[str, Any]:
        version = operation.metadata["jsonVersion"]
        headers = {
            "X-Amz-Target": f"{operation.metadata['targetPrefix']}.{operation.name}",
            "Content-Type": f"application/x-amz-json-{version}",
        }
        body = dumps(parameters)
        return {"url_path": "/", "query_string": "", "method": "POST", "headers": headers, "body": body}


class PlainParser(JSONParser):
    """The parser of botocore's "json" protocol without the walk."""

    def _do_parse(self, response: Mapping[str, Any], shape: object) -> dict[str, Any]:  # noqa: ARG002
        answer: dict[str, Any] = loads(response["body"]) if response["body"] else {}
        self._inject_response_metadata(answer, response["headers"])  # type: ignore[attr-defined]
        return answer


class PlainAnswers(ResponseParserFactory):
    """Makes a client's parsers."""

    def create_parser(self, protocol_name: str) -> PlainParser:  # noqa: ARG002
        return PlainParser()


def install(client: Any) -> None:
    """Makes a client of DynamoDB speak so. Botocore has no public place for either."""
    client._serializer = PlainRequests()  # noqa: SLF001
    client._endpoint._response_parser_factory = PlainAnswers()  # noqa: SLF001
