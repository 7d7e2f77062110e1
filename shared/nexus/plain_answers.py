"""DynamoDB's answers as the JSON that they are.

Botocore walks over an answer's shape attribute by attribute, which costs ten times the decoding and changes nothing
but binary attributes (of which this project has none: they would stay base64 text) and the dates of DescribeTable and
its kin (they stay seconds since 1970). Errors are parsed by botocore as ever.
"""

from collections.abc import Mapping
from typing import Any

from botocore.parsers import JSONParser, ResponseParserFactory

try:
    from orjson import loads
except ImportError:  # a web application has boto3 and pydantic alone
    from json import loads  # type: ignore[assignment]


class PlainParser(JSONParser):
    """The parser of botocore's "json" protocol without the walk."""

    def _do_parse(self, response: Mapping[str, Any], shape: object) -> dict[str, Any]:  # noqa: ARG002
        answer: dict[str, Any] = loads(response["body"]) if response["body"] else {}
        self._inject_response_metadata(answer, response["headers"])  # type: ignore[attr-defined]
        return answer


class PlainParsers(ResponseParserFactory):
    """Makes a client's parsers; of other protocols than "json", botocore's own."""

    def create_parser(self, protocol_name: str) -> Any:
        return PlainParser() if protocol_name == "json" else super().create_parser(protocol_name)


def parsers_for(service: str) -> ResponseParserFactory:
    """What a service's client is to be made with: a Session's component `response_parser_factory`."""
    return PlainParsers() if service == "dynamodb" else ResponseParserFactory()
