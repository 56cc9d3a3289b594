"""The one exception that users meet."""


class MicrosegError(Exception):
    """Bad input or an impossible request, told in one line.

    The text says what was given, what is allowed and what to do about it; the command line prints
    it without a traceback and exits with code 2.
    """
