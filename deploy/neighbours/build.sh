#!/usr/bin/env bash
# Builds the real neighbours that `make test-neighbours` checks us against: oras, etcd, the DRA
# oracle, kubectl, kube-apiserver. Usage: build.sh [NAME...]; without names, all of them.
#
# Binaries go to ${XDG_CACHE_HOME:-~/.cache}/wharfinger/neighbours/bin. What is there at the wanted
# version is left alone, so a second run costs nothing. Cold, on 2 cores, all five take about
# 15 minutes, most of it kubectl (the first to compile the shared packages) and kube-apiserver.
set -euo pipefail

readonly ETCD=v3.7.3 KUBERNETES=v1.37.2 ORAS=v1.3.6
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly oracle=$here/../../../shared/tools/dra-oracle
readonly bin=${XDG_CACHE_HOME:-$HOME/.cache}/wharfinger/neighbours/bin

say() { printf '%s\n' "neighbours: $*" >&2; }

if ! command -v go >/dev/null 2>&1; then
  say "expected a Go tool chain (1.26 or newer) on PATH, found none"
  say "hint: install it from https://go.dev/dl; without it the neighbour tests skip and say so"
  exit 2
fi

mkdir -p "$bin"
exec 9>"$bin/.lock"
flock --nonblock 9 || { say "another build is running, waiting for it"; flock 9; }

# The version that a built binary must carry in its stamp.
version_of() {
  case $1 in
    oras) echo "$ORAS" ;;
    etcd) echo "$ETCD" ;;
    kubectl | kube-apiserver) echo "$KUBERNETES" ;;
    dra-oracle) cat "$oracle"/{go.mod,go.sum,main.go} | sha256sum | cut -c1-16 ;;
  esac
}

# Compiles one neighbour to the path $2.
compile() {
  local name=$1 out=$2
  case $name in
    # `go install` names the binary itself, hence the folder of its own.
    oras) GOBIN=$(dirname "$out") go install -trimpath "oras.land/oras/cmd/oras@$ORAS" && mv "$(dirname "$out")/oras" "$out" ;;
    etcd) go build -C "$here/etcd" -trimpath -o "$out" go.etcd.io/etcd/server/v3 ;;
    dra-oracle) go build -C "$oracle" -trimpath -o "$out" . ;;
    kubectl | kube-apiserver)
      # Without these flags the binaries call themselves v0.0.0.
      local -r package=k8s.io/component-base/version minor=${KUBERNETES#v1.}
      go build -C "$here/kubernetes" -trimpath -o "$out" \
        -ldflags "-X $package.gitVersion=$KUBERNETES -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}" \
        "k8s.io/kubernetes/cmd/$name"
      ;;
  esac
}

wanted=("$@")
((${#wanted[@]})) || wanted=(oras etcd dra-oracle kubectl kube-apiserver)
scratch=$(mktemp -d "$bin/.build.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

step=0
for name in "${wanted[@]}"; do
  step=$((step + 1))
  at="[$step/${#wanted[@]}] $name"
  if [[ $name == dra-oracle && ! -d $oracle ]]; then
    say "$at: left out, its source is not beside this repository (../shared/tools/dra-oracle)"
    continue
  fi
  version=$(version_of "$name")
  if [[ -z $version ]]; then
    say "expected one of oras, etcd, dra-oracle, kubectl, kube-apiserver, got '$name'"
    exit 2
  fi
  if [[ -x $bin/$name && $(cat "$bin/.$name.version" 2>/dev/null) == "$version" ]]; then
    say "$at $version: already built"
    continue
  fi
  say "$at $version: building"
  began=$SECONDS
  compile "$name" "$scratch/$name.new"
  # Binary first, stamp second: a build cut short is built again.
  rm -f "$bin/.$name.version"
  mv "$scratch/$name.new" "$bin/$name"
  printf '%s\n' "$version" >"$bin/.$name.version"
  say "$at $version: built in $((SECONDS - began)) s"
done
say "ready in $bin"
