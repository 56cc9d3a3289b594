#!/usr/bin/env bash
# Write everything that cannot be computed again into a new folder: MLflow's, its accounts' and Optuna's database,
# and the bucket. The databases come first: an object is written before the row that names it, so that every row
# of the dump has its object in the copy. Nothing has to be stopped; only `gc` and other deletions must not run.
#
#   backup.sh FOLDER          BUCKET; PGHOST, PGUSER, PGPASSWORD (the superuser's); MLFLOW_S3_ENDPOINT_URL, AWS_*
set -euo pipefail

usage() { echo "usage: backup.sh FOLDER   (FOLDER must not exist; see deploy/README.md)"; }
case "${1:-}" in -h | --help) usage; exit 0 ;; "") usage >&2; exit 2 ;; esac
folder=${1%/}
: "${BUCKET:?the name of the bucket}" "${PGHOST:?the host of PostgreSQL}" "${PGUSER:?its superuser}"
export S3_ENDPOINT_URL=${S3_ENDPOINT_URL:-${MLFLOW_S3_ENDPOINT_URL:-}}
export AWS_REGION=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}

if [ -e "$folder" ]; then
    echo "$folder is there already; give a new folder" >&2
    exit 2
fi
unfinished=$folder.unfinished   # the name is given to complete backups only
rm -rf "$unfinished"
mkdir -p "$unfinished/bucket"
chmod 700 "$unfinished"

for database in mlflow mlflow_auth optuna; do
    pg_dump --format=custom --file="$unfinished/$database.dump" "$database"
done
listed=$(s5cmd ls "s3://$BUCKET")   # here, because a failure inside a condition would not end the script
if [ -n "$listed" ]; then
    s5cmd --log error cp "s3://$BUCKET/*" "$unfinished/bucket/"
fi
(cd "$unfinished" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
sync -f "$unfinished" 2>/dev/null || sync
mv "$unfinished" "$folder"
echo "$folder: $(find "$folder/bucket" -type f | wc -l) objects, $(du -sh "$folder" | cut -f1)"
