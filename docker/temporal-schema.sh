#!/bin/sh
# Bring both databases of the Temporal server to the schema of this image's version, then exit.
# Safe to run again, which is how an upgrade gets its schema: `create` leaves a database that is there, `setup-schema -v 0.0`
# never lowers a version, `update-schema` applies only what is missing (temporal v1.31.2: tools/common/schema/setuptask.go).
# Reads SQL_PLUGIN, SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD, as temporal-sql-tool does.
set -eu

for schema in temporal visibility; do
    case "$schema" in
        temporal) database=temporal ;;
        visibility) database=temporal_visibility ;;
    esac
    echo "Temporal schema: $database"
    temporal-sql-tool --database "$database" create-database
    temporal-sql-tool --database "$database" setup-schema -v 0.0
    temporal-sql-tool --database "$database" update-schema --schema-dir "/etc/temporal/schema/postgresql/v12/$schema/versioned"
done
echo "Temporal schema: done"
