"""The environment of a command: `.env` of the working directory beside the variables that are set, which win.

It is read once, before anything else looks, so that everything sees the same: the settings, `TEMPORAL_*` (which the Temporal SDK
reads), `KUBECONFIG`, the secrets that runbooks may use, and the address and key of the operator commands.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

from cli.output import Failure

ENV_FILE = ".env"


def read_env_file(folder: Path | None = None) -> None:
    """Add the variables of `.env` that are not set. Raises: Failure when the file cannot be read; a missing one is none."""
    path = (folder or Path.cwd()) / ENV_FILE
    try:
        if not path.is_file():
            return
        found = dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Failure("The file .env must be readable and in UTF-8.") from None
    for name, value in found.items():
        if value is not None:
            os.environ.setdefault(name, value)
