#!/usr/bin/env bash
# The end of `make demo`: a campaign's dataset becomes a signed release, which is served, pulled once and verified.
# usage: publish-demo.sh MATCOMPUTE WORKSPACE CAMPAIGN; a dataset that was released before is only served and pulled.
set -euo pipefail
matcompute=$(realpath "$1")
campaign=$3
cd "$2"
run() { "$matcompute" --workspace . "$@"; }

[ -f publication/keys/keyring.json ] || run publish keygen
digest=$(sha256sum "datasets/$campaign.h5" | cut -d' ' -f1)
if [ "$digest" != "$(cat publication/released.sha256 2>/dev/null || true)" ]; then
  rm -rf release
  run publish build --campaign "$campaign" --node matcompute-demo --out release
  run publish release release
  rm -rf release
  echo "$digest" > publication/released.sha256
fi

log=$(mktemp)
# Not by run: the process to end would be a shell, and the server would live on.
"$matcompute" --workspace . serve --port 0 > "$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -f "$log"' EXIT
url=
for _ in $(seq 300); do
  url=$(grep -om1 'http://127\.0\.0\.1:[0-9]*' "$log" || true)
  [ -n "$url" ] && break
  kill -0 $server 2>/dev/null || { cat "$log"; exit 1; }
  sleep 0.2
done
[ -n "$url" ] || { echo "error: the server did not start within 60 s"; cat "$log"; exit 1; }
# The key is known by another way than the server's word; whatever is not signed with it is refused.
key=$("$(dirname "$matcompute")/python" -c 'import json; print(json.load(open("publication/keys/keyring.json"))["keys"][0]["key_id"])')
run pull "$url" pulled --key "$key"
echo "the signed release was served, pulled and verified: $PWD/pulled/catalogue.json"
echo "look at it in a browser: matcompute --workspace $PWD serve"
