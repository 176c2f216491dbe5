#!/bin/sh
# typer 0.29.2 with numpy 2.4.6, Python 3.11: a command that loads an array cut short says "Aborted." and nothing else.
#
# numpy.load raises EOFError("No data left in file") for an empty .npy, which is what a full disk or a killed writer
# leaves. Typer (as click) takes every EOFError that leaves a command for the end of its input at a prompt: it prints
# "Aborted." and exits with 1, without the message, the name of the file or a traceback. The same file ends in a
# traceback that names the cause where the function is called outside of typer.
# Where a cache or a download may be cut short, catch EOFError around numpy.load (and pickle, tarfile) and say what it was.
#
# Seen: stderr "Aborted.", exit 1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check typer==0.29.2 numpy==2.4.6
cat > "$folder/command.py" <<'PY'
import numpy
import typer


def show(path: str) -> None:
    print(numpy.load(path).shape)


typer.run(show)
PY
: > "$folder/empty.npy"
code=0
"$folder/venv/bin/python" "$folder/command.py" "$folder/empty.npy" > "$folder/out" 2> "$folder/err" || code=$?
cat "$folder/err"
echo "exit $code"
"$folder/venv/bin/python" -c "import numpy; numpy.load('$folder/empty.npy')" 2> "$folder/plain" && exit 1
tail -n 1 "$folder/plain"
test "$code" = 1
grep -q '^Aborted' "$folder/err"
! grep -q 'empty.npy\|No data left' "$folder/err"
grep -q 'EOFError: No data left in file' "$folder/plain"
