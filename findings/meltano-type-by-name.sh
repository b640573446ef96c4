#!/bin/bash
# meltano 4.4.1: `meltano add NAME --from-ref FILE` goes by the name for the plugin's type, not by plugin_type in the file.
#
# A definition that says `plugin_type: loaders` and is called `load-cities` becomes a utility, exit code 0. What fails is
# the later `meltano run`, with "Unknown command type or bad block sequence". `--plugin-type loader` helps.
#
# Seen with Python 3.11, meltano 4.4.1:
#   by its name:  utilities
#   with the type: loaders
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export MELTANO_SEND_ANONYMOUS_USAGE_STATS=false NO_COLOR=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check meltano==4.4.1
cd "$folder"
cat > load-cities.yaml <<'DEFINITION'
name: load-cities
namespace: load_cities
variant: shop
plugin_type: loaders
label: Cities
pip_url: load-cities
executable: load-cities
DEFINITION
for words in "by its name: " "with the type:"; do
  venv/bin/meltano init project > /dev/null 2>&1
  chosen=()
  [[ $words == with* ]] && chosen=(--plugin-type loader)
  (cd project && ../venv/bin/meltano add --no-install "${chosen[@]}" load-cities --from-ref ../load-cities.yaml > /dev/null 2>&1)
  echo "$words" "$(sed -n '/^plugins:/{n;s/[ :]//gp}' project/meltano.yml)"
  rm -rf project
done | tee seen
diff seen - <<'SEEN'
by its name:  utilities
with the type: loaders
SEEN
