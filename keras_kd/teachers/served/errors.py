"""What can go wrong between a teacher and its servers."""


class ServedTeacherError(RuntimeError):
    """The servers of a teacher do not answer, or not soundly; `fit` raises it."""


class ServerError(Exception):
    """Base class of what one server did with one request; its text says what, without the URL."""


class Unavailable(ServerError):  # noqa: N818 what the server is
    """It did not answer, or something in between did: another try may succeed."""


class Rejected(ServerError):  # noqa: N818 what the request is
    """It answered that this request cannot be served."""


class UnsoundAnswer(ServerError):  # noqa: N818 what the answer is
    """Its answer is not what its model promises: shape, type, rows, or numbers not finite."""


class OtherModel(ServerError):  # noqa: N818 what the server has
    """It serves another model than the one that teaches."""


# Longer texts of servers are cut.
_SHOWN = 200


def first_line(text: str | bytes) -> str:
    """The first line of a server's text that is not empty, for a message."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = next((each.strip() for each in decoded.splitlines() if each.strip()), "")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
