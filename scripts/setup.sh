#!/bin/sh
# Set up `.venv` with everything that kitemesh needs, from python3 and the Python package index alone.
# Quick when nothing changed: a stamp remembers what was installed. PYTHON= names the interpreter to begin with.
set -eu

cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
UV_VERSION=0.13.9
VENV=.venv
STAMP=$VENV/kitemesh-setup.stamp

# Nothing of the caller's own environment may redirect what is installed, or where.
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT PYTHONHOME PYTHONPATH 2>/dev/null || true
export UV_PYTHON_DOWNLOADS=never

fail() {
    printf 'setup: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

fingerprint() {
    # The folder belongs in it: a virtual environment does not survive being moved.
    {
        pwd -P
        echo "$UV_VERSION"
        cat uv.lock VERSION pyproject.toml cli/pyproject.toml observability/pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml scripts/setup.sh
    } | cksum
}

# A Python that was asked for and is not the one of the environment that is here is not passed over.
if [ "$PYTHON" != python3 ] && HAVE=$("$VENV/bin/python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); then
    ASKED=$("$PYTHON" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || ASKED="not to be had"
    [ "$ASKED" = "$HAVE" ] || fail "$VENV has Python $HAVE and $PYTHON is $ASKED; \`make clean\` first to change"
fi

WANTED=$(fingerprint)
if [ -x "$VENV/bin/kitemesh" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$WANTED" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
STARTED=$(date +%s)

case "$(uname -s)/$(uname -m)" in
    Linux/x86_64 | Linux/amd64 | Linux/aarch64 | Linux/arm64) ;;
    Darwin/*) echo "setup: macOS is not tested; Linux is" ;;
    *)
        fail "there is no MongoDB wheel for $(uname -s) on $(uname -m); x86-64 and arm64 Linux have one" \
            "On another machine run the services against your own servers: see Dockerfile and docs/settings.md."
        ;;
esac

command -v "$PYTHON" >/dev/null 2>&1 ||
    fail "$PYTHON is not installed" "Debian, Ubuntu: apt-get install python3 python3-venv"
FOUND=$("$PYTHON" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>&1) ||
    fail "$PYTHON does not run: $FOUND"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is version $FOUND; kitemesh needs 3.11 or later" \
        "Debian 12 and Ubuntu 24.04 bring one; with another installed: make PYTHON=python3.11"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON cannot make virtual environments" "Debian, Ubuntu: apt-get install python3-venv"

rm -f "$STAMP"
# An environment that does not run, or was made in another folder, is made again.
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || ! grep -qF "$(pwd -P)/$VENV" "$VENV/bin/activate"; then
    echo "setup: 1/3 making $VENV with Python $FOUND"
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV" || fail "$PYTHON -m venv failed" "Debian, Ubuntu: apt-get install python3-venv"
else
    echo "setup: 1/3 using the $VENV that is here"
fi

echo "setup: 2/3 installing uv $UV_VERSION into $VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" ||
    fail "uv could not be installed; is the Python package index in reach?"

echo "setup: 3/3 installing what uv.lock names into $VENV (90 MB the first time)"
"$VENV/bin/uv" sync --frozen --python "$VENV/bin/python" ||
    fail "uv sync failed; its last lines say why. Run make again to go on from there."

# The servers run on this machine unless others are named.
if [ -z "${KITEMESH_MONGO_URL:-}" ]; then
    WRONG=$("$VENV/bin/python" -c '
from kitemesh_cli.servers import ServerMissing, check_mongod
try:
    check_mongod()
except ServerMissing as exc:
    print(exc)
')
    [ -z "$WRONG" ] || fail "$WRONG"
fi
command -v curl >/dev/null 2>&1 ||
    echo "setup: curl is not installed; the examples and one test use it: apt-get install curl"

printf '%s\n' "$WANTED" >"$STAMP"
echo "setup: done in $(($(date +%s) - STARTED)) s"
