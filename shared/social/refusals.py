"""The refusal of an upload, the same for pictures and clips, so that one handler can tell the post."""


class Rejected(Exception):
    """The upload itself is at fault, and will be however often it is tried: do not retry, tell the post why.

    Args:
        code: a stable word for programs and metrics, e.g. "unsupported", "truncated", "too_many_pixels".
        reason: one sentence for a person, shown with the post, e.g. "8192x8192 is over the limit of 9.4 megapixels".
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"
