# Sourced by the other scripts: finds a Python and keeps the checkout's .venv in step with a lock.
# Everything it says goes to stderr, so that a script's stdout stays its own.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$REPO/.venv"

die() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

# Prints the first Python >= 3.11 that can make a virtual environment.
find_python() {
    local candidate without_venv=""
    for candidate in python3 python3.13 python3.12 python3.11; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        without_venv="$candidate"
    done
    if [ -n "$without_venv" ]; then
        die "$without_venv cannot make virtual environments (no ensurepip); on Debian and Ubuntu: apt-get install python3-venv"
    fi
    die "needs Python 3.11 or newer as python3, python3.13, python3.12 or python3.11; found $(python3 --version 2>/dev/null || echo none)"
}

# What an installed environment depends on: where it is, the lock, the project's metadata.
venv_key() {
    "$1" - "$REPO" "$REPO/requirements/$2.lock" "$REPO/pyproject.toml" <<'PYTHON'
import hashlib, pathlib, sys
key = hashlib.sha256(sys.argv[1].encode())
for path in sys.argv[2:]:
    key.update(pathlib.Path(path).read_bytes())
print(key.hexdigest())
PYTHON
}

# Whether the environment was last installed for this lock ("demo" or "dev") as it is now.
venv_is_current() {
    local stamp="$VENV/.installed-$1"
    [ -f "$stamp" ] && "$VENV/bin/python" -c '' 2>/dev/null && [ "$(cat "$stamp")" = "$(venv_key "$VENV/bin/python" "$1")" ]
}

# Makes or refreshes the environment for the lock "demo" or "dev". "dev" holds all of "demo".
ensure_venv() {
    local lock="$1" python
    if venv_is_current dev || venv_is_current "$lock"; then
        return
    fi
    # An environment that was made for development stays one.
    if [ -f "$VENV/.installed-dev" ]; then
        lock=dev
    fi
    # Commands in an environment name its place: one that was moved with the checkout is made anew.
    if ! grep -qsF "$VENV/bin/python" "$VENV/bin/pip" ||
        ! "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$(find_python)" || exit
        echo "Making the virtual environment $VENV with $("$python" --version)" >&2
        "$python" -m venv --clear "$VENV" >&2 || die "could not make $VENV"
    fi
    echo "Installing the versions of requirements/$lock.lock" >&2
    rm -f "$VENV/.installed-dev" "$VENV/.installed-demo"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$VENV/bin/python" -m pip install --quiet --require-hashes -r "$REPO/requirements/$lock.lock" >&2 ||
        die "could not install requirements/$lock.lock (pip's message is above)"
    "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e "$REPO" >&2 ||
        die "could not install meshscope itself (pip's message is above)"
    venv_key "$VENV/bin/python" "$lock" >"$VENV/.installed-$lock"
}
