"""Backup, restore and upgrade of a real PostgreSQL, a real S3 server and MLflow's own tables."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from services import Postgres

pytestmark = pytest.mark.slow

PASSWORDS = {"mlflow": "word-of-mlflow", "optuna": 'it\'s "odd" $x'}
# As MLflow's own start does it, but only to a revision of its version 2.0.
OLD_TABLES = """
import sys
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
Base.metadata.create_all(sqlalchemy.create_engine(sys.argv[1]))
command.upgrade(_get_alembic_config(sys.argv[1]), "97727af70f4d")
"""
READ = """
import sys
import mlflow
run = mlflow.MlflowClient(sys.argv[1]).get_run("a" * 32)
print(run.info.run_name, run.data.metrics)
"""
OBJECTS = {
    "mlflow/1/model.keras": b"weights",
    "studies/cells/trial 1/state[2].json": b"{}",
    "data/cells/a%20b.png": bytes(range(256)) * 4096,
}


@pytest.fixture(scope="module")
def postgres(deploy):
    """PostgreSQL as its first start under compose leaves it: two roles, three databases."""
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder))
        server.start()
        environment = os.environ | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGPASSWORD": server.password,
            "POSTGRES_USER": "lab",
            "MLFLOW_DB_PASSWORD": PASSWORDS["mlflow"],
            "OPTUNA_DB_PASSWORD": PASSWORDS["optuna"],
        }
        script = deploy / "services/databases.sh"
        done = subprocess.run(["sh", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield server
        server.stop()


@pytest.fixture(scope="module")
def tools(deploy, postgres, s3_server):
    """Run backup.sh, restore.sh and mlflow as their container does."""
    s3_server.bucket("lab-backup")
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{deploy}:{programs}:{os.environ['PATH']}",
        "HOME": os.environ["HOME"],
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGUSER": "lab",
        "PGPASSWORD": postgres.password,
        "BUCKET": "lab-backup",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **s3_server.variables,
    }

    def run(*words: object, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        return subprocess.run(command, env=environment | changes, capture_output=True, text=True, check=False)

    return run


def connect(postgres: Postgres, role: str, database: str) -> psycopg.Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=postgres.port,
        user=role,
        password=PASSWORDS[role],
        dbname=database,
        autocommit=True,
    )


def empty(s3_server, bucket: str) -> None:
    client = s3_server.client()
    for key in s3_server.keys(bucket):
        client.delete_object(Bucket=bucket, Key=key)


def contents(s3_server, bucket: str) -> dict[str, bytes]:
    client = s3_server.client()
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in s3_server.keys(bucket)}


@pytest.fixture(scope="module")
def tables(postgres, tools) -> str:
    """MLflow's tables, made by MLflow itself."""
    url = f"postgresql+psycopg://mlflow@127.0.0.1:{postgres.port}/mlflow"
    done = tools("mlflow", "db", "upgrade", url, PGPASSWORD=PASSWORDS["mlflow"])  # the line of README.md
    assert done.returncode == 0, done.stderr
    return url


def test_an_upgrade_keeps_what_an_older_version_wrote(postgres, tools):
    """Tables as MLflow 2.0 made them, with a run."""
    with connect(postgres, "mlflow", "mlflow") as server:
        assert not server.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchall()
    url = f"postgresql+psycopg://mlflow@127.0.0.1:{postgres.port}/mlflow"
    done = tools(sys.executable, "-c", OLD_TABLES, url, PGPASSWORD=PASSWORDS["mlflow"])
    assert done.returncode == 0, done.stderr
    with connect(postgres, "mlflow", "mlflow") as server:
        for statement in (
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)"
            " VALUES (1, 'e', 's3://b', 'active')",
            "INSERT INTO runs (run_uuid, name, experiment_id, user_id, status, start_time, lifecycle_stage,"
            " source_type) VALUES (repeat('a', 32), 'old', 1, 'lea', 'FINISHED', 1, 'active', 'LOCAL')",
            *(
                f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan)"
                " VALUES ('val/dice', 0.5, 1, repeat('a', 32), 1, false)"
                for table in ("metrics", "latest_metrics")
            ),
        ):
            server.execute(statement)
    done = tools("mlflow", "db", "upgrade", url, PGPASSWORD=PASSWORDS["mlflow"])
    assert done.returncode == 0, done.stderr
    read = tools(sys.executable, "-W", "ignore", "-c", READ, url, PGPASSWORD=PASSWORDS["mlflow"])
    assert read.stdout == "old {'val/dice': 0.5}\n", read.stderr


def test_the_tables_of_optuna_are_upgraded_by_its_own_command(postgres, tools):
    url = f"postgresql+psycopg://optuna@127.0.0.1:{postgres.port}/optuna"
    create = "import sys; from optuna.storages import RDBStorage; RDBStorage(sys.argv[1])"
    assert tools(sys.executable, "-c", create, url, PGPASSWORD=PASSWORDS["optuna"]).returncode == 0
    with connect(postgres, "optuna", "optuna") as server:
        server.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    done = tools("optuna", "storage", "upgrade", "--storage", url, PGPASSWORD=PASSWORDS["optuna"])
    assert done.returncode == 0, done.stderr
    with connect(postgres, "optuna", "optuna") as server:
        assert server.execute("SELECT version_num FROM alembic_version").fetchall() == [("v3.2.0.a",)]


@pytest.fixture
def filled(tables, postgres, s3_server):
    """A row of each role's and some objects."""
    for role, database in (("mlflow", "mlflow_auth"), ("optuna", "optuna")):
        with connect(postgres, role, database) as server:
            server.execute("DROP TABLE IF EXISTS kept")
            server.execute("CREATE TABLE kept AS SELECT 'before' AS word")
    empty(s3_server, "lab-backup")
    for key, body in OBJECTS.items():
        s3_server.client().put_object(Bucket="lab-backup", Key=key, Body=body)


def test_roles_reach_their_own_databases_alone(postgres):
    connect(postgres, "mlflow", "mlflow").close()
    connect(postgres, "mlflow", "mlflow_auth").close()
    connect(postgres, "optuna", "optuna").close()
    for role, database in (("optuna", "mlflow"), ("optuna", "mlflow_auth"), ("mlflow", "optuna")):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            connect(postgres, role, database)


def test_what_was_lost_comes_back(filled, tables, postgres, s3_server, tools, tmp_path):
    done = tools("backup.sh", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert "3 objects" in done.stdout
    empty(s3_server, "lab-backup")
    s3_server.client().put_object(Bucket="lab-backup", Key="mlflow/1/model.keras", Body=b"WEIGHTS")  # damaged
    s3_server.client().put_object(Bucket="lab-backup", Key="newer", Body=b"stays")
    with connect(postgres, "optuna", "optuna") as server:
        server.execute("UPDATE kept SET word = 'after'")
    with connect(postgres, "mlflow", "mlflow") as server:
        rows = server.execute("SELECT count(*) FROM metrics").fetchall()
        server.execute("DROP TABLE metrics CASCADE")
    done = tools("restore.sh", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert contents(s3_server, "lab-backup") == OBJECTS | {"newer": b"stays"}
    for role, database in (("mlflow", "mlflow_auth"), ("optuna", "optuna")):
        with connect(postgres, role, database) as server:
            assert server.execute("SELECT word FROM kept").fetchall() == [("before",)]
    with connect(postgres, "mlflow", "mlflow") as server:
        assert server.execute("SELECT count(*) FROM metrics").fetchall() == rows
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        connect(postgres, "optuna", "mlflow")  # rights are part of it
    again = tools("mlflow", "db", "upgrade", tables, PGPASSWORD=PASSWORDS["mlflow"])
    assert again.returncode == 0, again.stderr


def test_a_server_of_another_place_takes_a_backup(filled, deploy, s3_server, tools, tmp_path):
    """A new machine: PostgreSQL after its first start, and no bucket yet."""
    assert tools("backup.sh", tmp_path / "copy").returncode == 0
    with tempfile.TemporaryDirectory() as folder:
        other = Postgres(Path(folder))
        other.start()
        try:
            words = {"MLFLOW_DB_PASSWORD": PASSWORDS["mlflow"], "OPTUNA_DB_PASSWORD": PASSWORDS["optuna"]}
            place = {"PGPORT": str(other.port), "PGPASSWORD": other.password, "POSTGRES_USER": "lab"}
            assert tools("sh", deploy / "services/databases.sh", **words, **place).returncode == 0
            done = tools("restore.sh", tmp_path / "copy", BUCKET="lab-new", **place)
            assert done.returncode == 0, done.stderr
            with connect(other, "optuna", "optuna") as server:
                assert server.execute("SELECT word FROM kept").fetchall() == [("before",)]
        finally:
            other.stop()
    assert contents(s3_server, "lab-new") == OBJECTS


def test_nothing_is_changed_by_a_damaged_backup_or_under_a_running_server(filled, postgres, tools, tmp_path):
    assert tools("backup.sh", tmp_path / "copy").returncode == 0
    damaged = shutil.copytree(tmp_path / "copy", tmp_path / "damaged")
    with (damaged / "optuna.dump").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    with connect(postgres, "optuna", "optuna") as server:
        server.execute("UPDATE kept SET word = 'newer'")
    done = tools("restore.sh", damaged)
    assert done.returncode == 2 and "is damaged; nothing was changed" in done.stderr
    with connect(postgres, "mlflow", "mlflow"):
        done = tools("restore.sh", tmp_path / "copy")
        assert done.returncode == 2 and "in use: mlflow; stop MLflow" in done.stderr
    with connect(postgres, "optuna", "optuna") as server:
        assert server.execute("SELECT word FROM kept").fetchall() == [("newer",)]


def test_a_backup_that_fails_has_no_name_and_one_is_never_written_over(filled, tools, tmp_path):
    failed = tools("backup.sh", tmp_path / "copy", AWS_SECRET_ACCESS_KEY="wrong")
    assert failed.returncode != 0 and not (tmp_path / "copy").exists()
    assert tools("backup.sh", tmp_path / "copy").returncode == 0
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0
    assert "is there already" in tools("backup.sh", tmp_path / "copy").stderr
