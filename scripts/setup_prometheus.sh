#!/bin/sh
# Put `prometheus` and `promtool` into .venv/prometheus: links to those on PATH, else the two programs of Debian's
# package, unpacked and not installed, which needs no root. Quick when they are there and run.
set -eu

cd "$(dirname "$0")/.."
PLACE=.venv/prometheus
PACKAGE=prometheus

fail() {
    printf 'setup: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

complete() {
    "$PLACE/prometheus" --version >/dev/null 2>&1 && "$PLACE/promtool" --version >/dev/null 2>&1
}

complete && exit 0

rm -rf "$PLACE"
mkdir -p "$PLACE"
if SERVER=$(command -v prometheus) && TOOL=$(command -v promtool); then
    ln -s "$SERVER" "$PLACE/prometheus"
    ln -s "$TOOL" "$PLACE/promtool"
    complete || fail "$SERVER or $TOOL is on PATH and does not run: $("$PLACE/prometheus" --version 2>&1 | tail -n 1)"
    echo "setup: using $SERVER and $TOOL"
    exit 0
fi

ADVICE="Install Prometheus 2.42 or later, so that prometheus and promtool are on PATH: https://prometheus.io/download/"
command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
    fail "the tests of the alert rules need prometheus and promtool, and this is no Debian to take them from" "$ADVICE"

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
# As root apt-get drops to a user of its own, who has to be able to write here.
chmod 777 "$WORK"

fetch() (cd "$WORK" && apt-get download --quiet "$PACKAGE" >"$WORK/log" 2>&1)

echo "setup: fetching Debian's $PACKAGE package (20 MB)"
if ! fetch; then
    [ "$(id -u)" = 0 ] || fail "apt-get download $PACKAGE failed: $(tail -n 1 "$WORK/log")" \
        "If the list of packages is empty: sudo apt-get update. Or:" "$ADVICE"
    apt-get update --quiet >"$WORK/log" 2>&1 || fail "apt-get update failed: $(tail -n 1 "$WORK/log")" "$ADVICE"
    fetch || fail "apt-get download $PACKAGE failed: $(tail -n 1 "$WORK/log")" "$ADVICE"
fi
dpkg-deb -x "$WORK"/*.deb "$WORK/tree" || fail "the package of $PACKAGE could not be unpacked" "$ADVICE"
cp "$WORK/tree/usr/bin/prometheus" "$WORK/tree/usr/bin/promtool" "$PLACE/" ||
    fail "the package of $PACKAGE holds no prometheus and promtool" "$ADVICE"
complete || fail "the unpacked prometheus does not run: $("$PLACE/prometheus" --version 2>&1 | tail -n 1)" "$ADVICE"
echo "setup: $("$PLACE/prometheus" --version 2>&1 | sed -n '1s/ (.*//p') in $PLACE"
