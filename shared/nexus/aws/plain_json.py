"""DynamoDB's requests and responses handled as plain JSON.

Botocore walks the shape of every request and response, attribute by attribute. That costs half the CPU of a batch of
writes and ten times the decoding of a page, and only affects binary attributes (this project has none: they would stay
base64 text) and the dates of DescribeTable and similar calls (they stay seconds since 1970). Connections, retries,
signing, event hooks and errors remain botocore's.
"""

from collections.abc import Mapping
from typing import Any

from botocore.parsers import JSONParser, ResponseParserFactory

from nexus.aws.encoding import dumps, loads


class PlainRequests:
    """Botocore's "json" serializer without the walk, for parameters that hold no bytes and no dates."""

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
    """Botocore's "json" parser without the walk."""

    def _do_parse(self, response: Mapping[str, Any], shape: object) -> dict[str, Any]:  # noqa: ARG002
        parsed: dict[str, Any] = loads(response["body"]) if response["body"] else {}
        self._inject_response_metadata(parsed, response["headers"])  # type: ignore[attr-defined]
        return parsed


class PlainAnswers(ResponseParserFactory):
    """Creates a client's parsers."""

    def create_parser(self, protocol_name: str) -> PlainParser:  # noqa: ARG002
        return PlainParser()


def install(client: Any) -> None:
    """Makes a DynamoDB client use both. Botocore has no public hook for either."""
    client._serializer = PlainRequests()  # noqa: SLF001
    client._endpoint._response_parser_factory = PlainAnswers()  # noqa: SLF001
