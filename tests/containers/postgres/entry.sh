# What the official image's entry does with the variables that docker-compose.yml sets.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" -A scram-sha-256
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  export PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
  pg_ctl -w -o "-c listen_addresses='' -k /tmp" start
  createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*.sql; do
    psql -q -h /tmp -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"
  done
  pg_ctl -w stop
fi
exec postgres -c listen_addresses='*' -k /var/run/postgresql
