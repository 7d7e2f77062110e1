"""Formats log lines as Powertools does, but the two lines of every run at a third of the cost, and shorter."""

import logging
import os
from datetime import UTC, datetime

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

OF_EVERY_RUN = frozenset({"run started", "run ended"})

_LEFT_OUT = frozenset({"location", "service"})
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(LambdaPowertoolsFormatter):
    """Powertools' formatter tries to parse each message as JSON, and formats each standard field by a template; this
    one does neither for a run's two lines.

    Those lines omit the place in the code, which is always the same, and the service, which the log group names.
    """

    def format(self, record: logging.LogRecord) -> str:
        if record.msg not in OF_EVERY_RUN or record.exc_info or record.args:
            return super().format(record)
        line = {
            **self.log_format,
            **self.thread_safe_get_current_keys(),
            "level": record.levelname,
            "message": record.msg,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if trace := os.environ.get("_X_AMZN_TRACE_ID"):
            line["xray_trace_id"] = trace.partition(";")[0].removeprefix("Root=")
        return self.serialize(
            {name: value for name, value in line.items() if value is not None and name not in _LEFT_OUT}
        )
