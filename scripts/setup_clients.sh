#!/bin/sh
# Install the clients that tests/clients runs, into what `make setup` has made: the Python ones, and the packages of the
# folders of tests/clients that are named, which have a lock file for npm. Quick when nothing changed.
set -eu

cd "$(dirname "$0")/.."
VENV=.venv

unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT PYTHONHOME PYTHONPATH 2>/dev/null || true
export UV_PYTHON_DOWNLOADS=never

"$VENV/bin/uv" sync --quiet --frozen --inexact --group clients --python "$VENV/bin/python" || {
    echo "setup: the Python clients could not be installed; is the Python package index in reach?" >&2
    exit 1
}

for PACKAGES; do
    FOLDER=tests/clients/$PACKAGES
    STAMP=$FOLDER/node_modules/kitemesh-setup.stamp
    WANTED=$(cat "$FOLDER/package.json" "$FOLDER/package-lock.json" | cksum)
    [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ] || continue
    if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
        echo "setup: the clients' tests need Node.js 20 or later with npm: apt-get install nodejs npm" >&2
        exit 1
    fi
    echo "setup: installing the packages of $FOLDER"
    (cd "$FOLDER" && npm ci --ignore-scripts --loglevel=error) || {
        echo "setup: npm failed; its last lines say why" >&2
        exit 1
    }
    printf '%s\n' "$WANTED" >"$STAMP"
done
