#!/usr/bin/env bash
# import-linter keeps a contract that an import breaks by way of a folder without
# __init__.py.
#
# The guess: a folder of modules can be imported without an __init__.py since Python 3.3, so
# a linter of imports follows it there; or says that it cannot.
#
# What happens: inside of a package, a folder without that file is left out of the graph,
# with all that it imports and without a word. A chain low -> shared -> high that Python
# runs is not seen; the contract is KEPT and the exit status 0. With an empty
# __init__.py in the folder the same contract is BROKEN.
#
# Seen with import-linter 2.17 and grimp 3.20:
#
#     Python: shop.low.order imports shop.high.page: True
#     without shared/__init__.py: exit status 0, 1 kept, 0 broken; Analyzed 5 files, 0 dependencies.
#     with shared/__init__.py:    exit status 1, 0 kept, 1 broken; Analyzed 7 files, 2 dependencies.
#
# For a project that guards its architecture so: have a test compare the folders that hold
# .py files with those that hold an __init__.py.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet --quiet --disable-pip-version-check \
    import-linter==2.17 grimp==3.20
cd "$room"
mkdir -p shop/low shop/high shop/shared
touch shop/__init__.py shop/low/__init__.py shop/high/__init__.py
echo "import shop.shared.words" >shop/low/order.py
echo "import shop.high.page" >shop/shared/words.py
echo "TITLE = 'Shop'" >shop/high/page.py
cat >.importlinter <<'CONFIG'
[importlinter]
root_package = shop

[importlinter:contract:layers]
name = The low does not know the high
type = layers
layers =
    shop.high
    shop.low
CONFIG
reaches=$(venv/bin/python -c "
import sys, shop.low.order
print('shop.high.page' in sys.modules)")
echo "Python: shop.low.order imports shop.high.page: $reaches"

lint() {
    local status=0
    venv/bin/lint-imports --no-cache >said 2>&1 || status=$?
    local counted seen
    counted=$(sed -n 's/^Contracts: \(.*\)\.$/\1/p' said)
    seen=$(grep '^Analyzed' said)
    echo "exit status $status, $counted; $seen"
}

without=$(lint)
touch shop/shared/__init__.py
with=$(lint)
echo "without shared/__init__.py: $without"
echo "with shared/__init__.py:    $with"
if [[ $reaches != True || $without != "exit status 0, 1 kept, 0 broken"* ||
    $with != "exit status 1, 0 kept, 1 broken"* ]]; then
    echo "CHANGED: import-linter sees a folder without __init__.py" >&2
    exit 1
fi
