#!/usr/bin/env bash
# PostgreSQL, PgBouncer and Redis on private ports of this machine: for tests, with data under target/services that goes with them.
#
#   scripts/services.sh            start what does not run, print `export TROUPE_TEST_...` lines:  eval "$(scripts/services.sh)"
#   scripts/services.sh stop       stop them and remove their data
#   scripts/services.sh running    succeed when they run
#   scripts/services.sh remove     the same as stop, also with --keep
#   scripts/services.sh install    only install what is missing
#
#   --keep FOLDER                  PostgreSQL and Redis of another folder; the database outlives a stop
#
# For tests PostgreSQL does not wait for the disk, unless TROUPE_TEST_FSYNC=on when it starts (for benchmarks). A database that is kept does.
# Missing programs are installed with apt-get (as root, or with sudo). Nothing else on this machine is touched.
set -euo pipefail
umask 077
cd "$(dirname "$0")/.."

# PostgreSQL and PgBouncer refuse to run as root.
user=""
if [ "$(id -u)" = 0 ]; then
    user=nobody
    if id postgres >/dev/null 2>&1; then user=postgres; fi
fi
home=$PWD/target/services
keep=""
if [ "${1:-}" = --keep ]; then
    keep=yes
    mkdir -p "${2:?scripts/services.sh --keep FOLDER}"
    home=$(cd "$2" && pwd)
    shift 2
fi
fsync=${TROUPE_TEST_FSYNC:-off}
if [ -n "$keep" ]; then fsync=on; fi

say() { echo "$*" >&2; }

as_user() {
    if [ -n "$user" ]; then
        setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@"
    else
        "$@"
    fi
}

# The folder, or one in /tmp when the other user cannot come here (a clone in root's home).
choose_home() {
    mkdir -p "$home"
    if [ -n "$user" ] && ! (cd / && as_user test -x "$home"); then
        local place=$home
        home=${TMPDIR:-/tmp}/troupe-services-$(pwd | cksum | cut -d' ' -f1)
        if [ -n "$keep" ]; then
            home=${TMPDIR:-/tmp}/troupe-kept-$(echo "$place" | cksum | cut -d' ' -f1)
            # Who removed the folder meant the data.
            if [ ! -e "$place/elsewhere" ]; then remove; fi
            echo "$home" >"$place/elsewhere"
        fi
        mkdir -p "$home"
    fi
    if [ -n "$user" ]; then chown "$user" "$home"; fi
}

# program package: the program's path, after installing the package if need be.
need() {
    local found
    found=$(find_program "$1")
    if [ -z "$found" ]; then
        install_package "$2"
        found=$(find_program "$1")
    fi
    if [ -z "$found" ]; then
        say "$1 is missing: install the package $2 and run this again"
        exit 1
    fi
    echo "$found"
}

find_program() {
    command -v "$1" || ls -1 /usr/lib/postgresql/*/bin/"$1" /usr/sbin/"$1" 2>/dev/null | sort -V | tail -1 || true
}

install_package() {
    local root=""
    if [ "$(id -u)" != 0 ]; then root="sudo -n"; fi
    if ! command -v apt-get >/dev/null; then return; fi
    say "installing $1"
    # RUNLEVEL=1: the package does not start a server of its own.
    { $root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" ||
        { $root apt-get update && $root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"; }; } >&2 || true
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# file: whether the process of a pid file lives.
alive() {
    [ -s "$1" ] && kill -0 "$(head -1 "$1")" 2>/dev/null
}

# seconds command...: waits until the command succeeds.
wait_for() {
    local left=$(($1 * 20))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then return 1; fi
        sleep 0.05
    done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

start_postgres() {
    local data=$home/postgres
    if alive "$data/postmaster.pid"; then return; fi
    local initdb pg_ctl password port
    initdb=$(need initdb postgresql)
    # `initdb` may be a link into the folder that has the rest.
    initdb=$(readlink -f "$initdb")
    pg_ctl=$(dirname "$initdb")/pg_ctl
    # A package that was just installed has brought the user along.
    if [ "$user" = nobody ] && id postgres >/dev/null 2>&1; then
        user=postgres
        chown "$user" "$home"
    fi
    if [ -z "$keep" ] || [ ! -s "$home/postgres.at" ]; then make_database "$initdb" "$data"; fi
    read -r port password <"$home/postgres.at"
    if listens "$port"; then port=$(free_port); fi
    (cd / && as_user "$pg_ctl" -D "$data" -l "$data/server.log" -o "-p $port" -w -t 60 start) >&2 </dev/null || {
        tail -20 "$data/server.log" >&2
        exit 1
    }
    echo "export TROUPE_TEST_POSTGRES=postgres://troupe:$password@127.0.0.1:$port/postgres" >"$home/postgres.env"
    echo "$port $password" >"$home/postgres.at"
}

# initdb data: an empty database, with a port and a password in postgres.at.
make_database() {
    local data=$2 password
    rm -rf "$data"
    password=$(secret)
    (umask 077 && echo "$password" >"$home/password")
    if [ -n "$user" ]; then chown "$user" "$home/password"; fi
    (cd / && as_user "$1" -D "$data" -U troupe --pwfile="$home/password" --auth=scram-sha-256 -E UTF8 --locale=C --no-sync) >"$home/initdb.log" 2>&1 || {
        cat "$home/initdb.log" >&2
        exit 1
    }
    cat >>"$data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 64MB
logging_collector = off
fsync = $fsync
CONF
    echo "$(free_port) $password" >"$home/postgres.at"
}

# In front of PostgreSQL, in transaction mode.
start_pgbouncer() {
    local folder=$home/pgbouncer
    if alive "$folder/pid"; then return; fi
    local program port upstream password
    program=$(need pgbouncer pgbouncer)
    read -r upstream password <"$home/postgres.at"
    port=$(free_port)
    mkdir -p "$folder"
    rm -f "$folder/pid"
    (umask 077 && echo "\"troupe\" \"$password\"" >"$folder/users")
    cat >"$folder/pgbouncer.ini" <<CONF
[databases]
* = host=127.0.0.1 port=$upstream
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $folder/users
pool_mode = transaction
max_client_conn = 500
default_pool_size = 3
server_idle_timeout = 5
ignore_startup_parameters = extra_float_digits
logfile = $folder/log
pidfile = $folder/pid
CONF
    if [ -n "$user" ]; then chown -R "$user" "$folder"; fi
    (cd / && as_user "$program" -q -d "$folder/pgbouncer.ini") >&2 </dev/null
    wait_for 10 listens "$port" || { tail -20 "$folder/log" >&2; exit 1; }
    echo "export TROUPE_TEST_PGBOUNCER=postgres://troupe:$password@127.0.0.1:$port/postgres" >"$home/pgbouncer.env"
}

start_redis() {
    local folder=$home/redis
    if alive "$folder/pid"; then return; fi
    local program port
    program=$(need redis-server redis-server)
    port=$(free_port)
    mkdir -p "$folder"
    rm -f "$folder/pid"
    "$program" --port "$port" --bind 127.0.0.1 --dir "$folder" --pidfile "$folder/pid" --logfile "$folder/log" --daemonize yes \
        --save "" --appendonly no >&2 </dev/null
    wait_for 10 listens "$port" || { tail -20 "$folder/log" >&2; exit 1; }
    echo "export TROUPE_TEST_REDIS=redis://127.0.0.1:$port" >"$home/redis.env"
}

start() {
    choose_home
    # Two callers at the same time: the second waits and finds everything running.
    exec 9>"$home/lock"
    if command -v flock >/dev/null; then flock 9; fi
    start_postgres 9>&-
    if [ -z "$keep" ]; then start_pgbouncer 9>&-; fi
    start_redis 9>&-
    cat "$home/postgres.env" "$home/redis.env"
    if [ -z "$keep" ]; then cat "$home/pgbouncer.env"; fi
}

running() {
    choose_home
    alive "$home/postgres/postmaster.pid" && alive "$home/redis/pid" && { [ -n "$keep" ] || alive "$home/pgbouncer/pid"; }
}

stop() {
    choose_home
    if [ -n "$keep" ]; then end_all; else remove; fi
}

end_all() {
    local pid file
    for file in "$home/pgbouncer/pid" "$home/redis/pid" "$home/postgres/postmaster.pid"; do
        if alive "$file"; then
            pid=$(head -1 "$file")
            # SIGINT: PostgreSQL ends its sessions and stops.
            kill -INT "$pid"
            wait_for 20 eval "! kill -0 $pid" || kill -KILL "$pid"
        fi
    done
}

remove() {
    end_all
    rm -rf "$home"
}

# What tests and `make chaos` start themselves. Clocks cannot be moved without the last one; everything else can be done.
install() {
    need initdb postgresql >/dev/null
    need redis-server redis-server >/dev/null
    compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null || install_package faketime
}

case ${1:-start} in
start) start ;;
install) install ;;
stop) stop ;;
running) running ;;
remove)
    choose_home
    remove
    ;;
*)
    say "usage: scripts/services.sh [--keep FOLDER] [start|stop|running|remove|install]"
    exit 2
    ;;
esac
