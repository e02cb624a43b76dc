#!/usr/bin/env bash
# All services as processes of this machine, over a PostgreSQL and a Redis of their own. Everything is in target/up: logs, settings, pids.
#
#   scripts/up.sh                   start what does not run, wait until all is ready      (REPLICAS=2, PROFILE=debug, UP=target/up)
#   scripts/up.sh down              stop all; the database stays until target/up is removed
#   scripts/up.sh down --remove     stop all, and remove target/up and the database
#
# The first gateway gets the ports that `troupe` asks at by default, when they are free; target/up/env has what to set otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

home=$PWD/${UP:-target/up}
profile=${PROFILE:-debug}
replicas=${REPLICAS:-2}
# How long a service may take to be ready, in seconds, and how long to end: to drain and to close, each within `process.drain_seconds` (30),
# and to send its last spans.
patience=60
drain=70
# In the order in which they are stopped: each before what it needs.
services="gateway agents scheduler executor approval registry checkpoint"

say() { echo "$*"; }

fail() {
    echo "error: $*" >&2
    exit 1
}

# The names of all processes: registry-1 and so on.
names() {
    local service number
    for service in $services; do
        for number in $(seq "$replicas"); do echo "$service-$number"; done
    done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# When a process was started, in the kernel's ticks: tells it from another one that got its number later. Nothing for one that has ended.
born() { sed -n 's/.*) //; /^[^ZX]/p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# name: succeeds while the process lives.
alive() {
    local pid birth
    [ -s "$home/pids/$1" ] || return 1
    read -r pid birth <"$home/pids/$1"
    [ -n "$birth" ] && [ "$(born "$pid")" = "$birth" ]
}

pid_of() { cut -d' ' -f1 "$home/pids/$1"; }

# name column: the port of a process; 2 is gRPC, 3 is HTTP.
port_of() { awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$home/ports"; }

# The gRPC port of a service whose HTTP port, 1000 above, is free too.
free_ports() {
    local port
    while :; do
        port=$((20000 + RANDOM % 9000))
        if ! listens "$port" && ! listens $((port + 1000)) && ! grep -qE "[ ]($port|$((port + 1000)))( |$)" "$home/ports.new"; then
            echo "$port $((port + 1000))"
            return
        fi
    done
}

# Who listens where. It stays as long as one of them lives, because they know each other's ports.
choose_ports() {
    local name
    for name in $(cut -d' ' -f1 "$home/ports" 2>/dev/null); do
        if alive "$name"; then
            [ "$(cut -d' ' -f1 "$home/ports")" = "$(names)" ] || fail "it runs with another number of replicas: run \`make down\` first"
            return
        fi
    done
    : >"$home/ports.new"
    for name in $(names); do
        if [ "$name" = gateway-1 ] && ! listens 8080 && ! listens 50051; then
            echo "$name 50051 8080"
        else
            echo "$name $(free_ports)"
        fi >>"$home/ports.new"
    done
    mv "$home/ports.new" "$home/ports"
}

# The gRPC URLs of all replicas of a service.
urls() {
    local name urls=""
    for name in $(names | grep "^$1-"); do urls="$urls,http://127.0.0.1:$(port_of "$name" 2)"; done
    echo "${urls#,}"
}

settings() {
    local service
    for service in registry scheduler executor checkpoint approval; do
        echo "export TROUPE__PROCESS__ADDRESSES__${service^^}=$(urls "$service")"
    done
    for service in registry checkpoint approval; do
        echo "export TROUPE__${service^^}__POSTGRES__URL=$TROUPE_TEST_POSTGRES"
    done
    echo "export TROUPE__SCHEDULER__REDIS__URL=$TROUPE_TEST_REDIS"
    echo "export TROUPE__PROCESS__DATA=$home/data"
    echo "export TROUPE__TELEMETRY__LOG=\${TROUPE__TELEMETRY__LOG:-info}"
}

# Starts a process, unless it lives.
start() {
    local name=$1 service=${1%-*} grpc http pid
    if alive "$name"; then return; fi
    grpc=$(port_of "$name" 2)
    http=$(port_of "$name" 3)
    local command=("$home/bin/troupe" service "$service")
    if [ "$service" = gateway ]; then
        export TROUPE__GATEWAY__HTTP=127.0.0.1:$http TROUPE__GATEWAY__GRPC=127.0.0.1:$grpc
    else
        command+=(--port "$grpc")
    fi
    # A session of its own: what is typed at this terminal is not for it.
    setsid "${command[@]}" >>"$home/logs/$name.log" 2>&1 </dev/null &
    pid=$!
    disown "$pid"
    echo "$pid $(born "$pid")" >"$home/pids/$name"
}

# Succeeds when a process says that it is ready.
ready() {
    local answer=""
    { exec 3<>"/dev/tcp/127.0.0.1/$(port_of "$1" 3)"; } 2>/dev/null || return 1
    printf 'GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
    read -r -t 5 answer <&3 || true
    exec 3>&-
    [[ $answer == *" 200 "* ]]
}

# Waits until all are ready, and says so as they get there.
wait_ready() {
    local name waiting left start=$SECONDS
    waiting=$(names)
    while [ -n "$waiting" ]; do
        left=""
        for name in $waiting; do
            if ready "$name"; then
                say "  $name is ready"
            elif ! alive "$name"; then
                tail -n 20 "$home/logs/$name.log" >&2
                fail "$name ended before it was ready (its log: $home/logs/$name.log)"
            else
                left="$left $name"
            fi
        done
        if [ -n "$left" ]; then
            if [ $((SECONDS - start)) -ge "$patience" ]; then
                for name in $left; do
                    echo "--- $name" >&2
                    tail -n 5 "$home/logs/$name.log" >&2
                done
                fail "not ready after $patience s:$left (logs: $home/logs)"
            fi
            sleep 0.1
        fi
        waiting=$left
    done
}

up() {
    local name servers features=()
    [[ $replicas =~ ^[1-9][0-9]?$ ]] || fail "REPLICAS=$replicas is no number from 1 to 99"
    case $profile in
    debug) ;;
    release) features=(--release) ;;
    *) fail "PROFILE=$profile is neither debug nor release" ;;
    esac
    cargo build --locked -p troupe "${features[@]}"
    mkdir -p "$home"/{bin,data,logs,pids}
    chmod 700 "$home"
    servers=$(scripts/services.sh --keep "$home/servers")
    eval "$servers"
    choose_ports
    # A copy, so that a build does not change what runs.
    if [ "target/$profile/troupe" -nt "$home/bin/troupe" ]; then
        cp "target/$profile/troupe" "$home/bin/troupe.new"
        mv "$home/bin/troupe.new" "$home/bin/troupe"
    fi
    (umask 077 && settings >"$home/settings")
    (
        # shellcheck disable=SC1091
        . "$home/settings"
        for name in $(names | tac); do start "$name"; done
    )
    wait_ready
    echo "export TROUPE_SERVER=http://127.0.0.1:$(port_of gateway-1 3)" >"$home/env"
    table
}

table() {
    local name
    say
    printf '%-14s %8s %7s %7s  %s\n' NAME PID GRPC HTTP LOG
    for name in $(names | tac); do
        printf '%-14s %8s %7s %7s  %s\n' "$name" "$(pid_of "$name")" "$(port_of "$name" 2)" "$(port_of "$name" 3)" "target/up/logs/$name.log"
    done
    say
    if [ "$(port_of gateway-1 3)" = 8080 ]; then
        say "The API is at http://127.0.0.1:8080, where \`troupe\` looks for it. \`make down\` stops everything."
    else
        say "Port 8080 or 50051 is in use. Before you call \`troupe\`:  $(cat "$home/env")"
    fi
}

# stop or remove: what becomes of the database.
down() {
    local service name names
    names=$(cut -d' ' -f1 "$home/ports" 2>/dev/null || true)
    # Service after service, because each needs those that are still there; its replicas at the same time.
    for service in $services; do
        for name in $names; do
            if [ "${name%-*}" = "$service" ]; then end "$name" & fi
        done
        wait
    done
    rm -f "$home/env"
    if [ ! -d "$home/servers" ]; then
        say "nothing runs"
        return
    fi
    scripts/services.sh --keep "$home/servers" "$1"
    if [ "$1" = remove ]; then
        rm -rf "$home"
        say "PostgreSQL and Redis have ended; the database is removed"
    else
        say "PostgreSQL and Redis have ended; the database is kept until target/up is removed"
    fi
}

# Lets a process finish what it does, and kills it when that takes too long.
end() {
    local name=$1 pid left=$((drain * 20)) start=$SECONDS
    if ! alive "$name"; then
        say "  $name did not run"
        return
    fi
    pid=$(pid_of "$name")
    # It may end at this very moment.
    kill -TERM "$pid" 2>/dev/null || true
    while alive "$name" && [ "$left" -gt 0 ]; do
        sleep 0.05
        left=$((left - 1))
    done
    if alive "$name"; then
        kill -KILL "$pid" 2>/dev/null || true
        say "  $name was killed: it did not end within $drain s"
    else
        say "  $name has ended ($((SECONDS - start)) s)"
    fi
    rm -f "$home/pids/$name"
}

case "$*" in
"" | up) up ;;
down) down stop ;;
"down --remove") down remove ;;
*) fail "usage: scripts/up.sh [up | down [--remove]]" ;;
esac
