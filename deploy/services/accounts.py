"""Give the deployment's own accounts on the tracking server their passwords; create those that are missing.

`analyst` runs studies, `front` reads the champion. Run again after a password was changed.
"""

import os

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

ACCOUNTS = {"analyst": "ANALYST_PASSWORD", "front": "FRONT_PASSWORD"}


def main() -> None:
    """Ask the server of MLFLOW_TRACKING_URI, as its administrator."""
    client = get_app_client("basic-auth", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    for name, variable in ACCOUNTS.items():
        try:
            client.create_user(name, os.environ[variable])
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            client.update_user_password(name, os.environ[variable])


if __name__ == "__main__":
    main()
