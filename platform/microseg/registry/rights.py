"""Who may promote, asked before a hold-out is used in vain."""

from __future__ import annotations

from mlflow.tracking import MlflowClient

from microseg.registry.uses import EXPERIMENT, NOTE, hold_outs
from microseg.tracking.rights import allowed


def check_rights(client: MlflowClient, name: str, run_id: str) -> None:
    """Refuse whoever may not record a decision, or act on it: on a server with users that takes permissions.

    No server tells beforehand what it will allow: each place is written what it holds already.

    Parameters
    ----------
    client : MlflowClient
        The tracking store, which is the registry too.
    name : str
        The registered model.
    run_id : str
        The run that keeps the decision, that of the challenger's study.

    Raises
    ------
    MicrosegError
        For the first place that may not be changed.
    """
    check_model(client, name)
    run = client.get_run(run_id).info
    with allowed(f"the experiment '{client.get_experiment(run.experiment_id).name}'"):
        client.update_run(run_id, name=run.run_name)
    with allowed(f"the experiment '{EXPERIMENT}'"):
        for key, text in NOTE.items():
            client.set_experiment_tag(hold_outs(client).experiment_id, key, text)


def check_model(client: MlflowClient, name: str) -> None:
    """Refuse whoever may not change a registered model; one that is not there yet anybody may make.

    Raises
    ------
    MicrosegError
        If the user may not.
    """
    quoted = name.replace("'", "''")
    for model in client.search_registered_models(f"name = '{quoted}'"):
        with allowed(f"the registered model '{name}'"):
            client.update_registered_model(name, model.description or "")
