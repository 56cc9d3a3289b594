#!/usr/bin/env bash
# Put a backup back: its checksums first, then the bucket, then the databases, so that no row is there before its
# object. Objects that are newer than the backup stay: they are in nobody's way. PostgreSQL refuses to replace a
# database that is in use, so stop MLflow, the model server and all studies before.
#
#   restore.sh FOLDER         BUCKET; PGHOST, PGUSER, PGPASSWORD (the superuser's); MLFLOW_S3_ENDPOINT_URL, AWS_*
set -euo pipefail

usage() { echo "usage: restore.sh FOLDER   (as written by backup.sh; see deploy/README.md)"; }
case "${1:-}" in -h | --help) usage; exit 0 ;; "") usage >&2; exit 2 ;; esac
folder=${1%/}
: "${BUCKET:?the name of the bucket}" "${PGHOST:?the host of PostgreSQL}" "${PGUSER:?its superuser}"
export S3_ENDPOINT_URL=${S3_ENDPOINT_URL:-${MLFLOW_S3_ENDPOINT_URL:-}}
export AWS_REGION=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}

if [ ! -f "$folder/SHA256SUMS" ]; then
    echo "$folder is no complete backup: it has no SHA256SUMS; give a folder that backup.sh has ended" >&2
    exit 2
fi
if ! (cd "$folder" && sha256sum --check --strict --quiet SHA256SUMS >&2); then
    echo "$folder is damaged; nothing was changed" >&2
    exit 2
fi
busy=$(psql --no-psqlrc --tuples-only --no-align --dbname=postgres --command="
    SELECT string_agg(DISTINCT datname, ', ') FROM pg_stat_activity WHERE datname IN ('mlflow', 'mlflow_auth', 'optuna')")
if [ -n "$busy" ]; then
    echo "in use: $busy; stop MLflow, the model server and all studies; nothing was changed" >&2
    exit 2
fi

s5cmd --log error ls "s3://$BUCKET" >/dev/null 2>&1 || s5cmd --log error mb "s3://$BUCKET"
if [ -n "$(ls -A "$folder/bucket")" ]; then
    s5cmd --log error cp "$folder/bucket/" "s3://$BUCKET/"
fi
for database in mlflow mlflow_auth optuna; do
    pg_restore --clean --if-exists --create --exit-on-error --dbname=postgres "$folder/$database.dump"
done
echo "$folder: put back"
