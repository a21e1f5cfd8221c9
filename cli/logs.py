"""The log of a running part: one line a record on stderr, without what libraries have to say on a good day."""

import logging
import time

OUR_PACKAGES = ("cli", "api", "activities", "workflows", "domain")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Begin to log: our own packages from `level`, libraries from WARNING."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in OUR_PACKAGES:
        logging.getLogger(package).setLevel(level)
