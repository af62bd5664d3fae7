#!/bin/sh
# Print the Secrets that k8s/overlays/prod refers to, from the folder that `kitemesh bootstrap --access` wrote:
#   export KITEMESH_NATS_URL=tls://… KITEMESH_MONGO_URL='mongodb://admin:…@…/?tls=true'
#   kitemesh bootstrap --access access --files-only
#   sh k8s/secrets.sh access | kubectl apply -f -
# KITEMESH_MONGO_URL is that of a user who may make users; only the bootstrap Job and the operator's shell get it.
# KITEMESH_KEY_PEPPER, unless it is set, is made once and kept in the folder. NAMESPACE is kitemesh unless it is set.
#
# `kubectl create secret --from-env-file` does not serve: it takes a value's quotation marks for part of it.
set -eu
umask 077

access=${1:?"the folder that kitemesh bootstrap --access wrote"}
namespace=${NAMESPACE:-kitemesh}
admin_url=${KITEMESH_MONGO_URL:?"the URL of a MongoDB user who may make users"}
[ -f "$access/passwords.json" ] || { echo "$access holds no passwords.json" >&2; exit 1; }

if [ -z "${KITEMESH_KEY_PEPPER:-}" ]; then
    [ -s "$access/pepper" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$access/pepper"
    KITEMESH_KEY_PEPPER=$(cat "$access/pepper")
fi

encode() {
    base64 | tr -d '\n'
}

begin() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\ndata:\n' "$1" "$namespace"
}

add_text() {
    printf '  %s: %s\n' "$1" "$(printf %s "$2" | encode)"
}

add_file() {
    printf '  %s: %s\n' "$(basename "$1")" "$(encode <"$1")"
}

for service in gateway orchestrator model-runner tool-executor; do
    (
        . "$access/$service.env"
        begin "kitemesh-$service"
        add_text KITEMESH_NATS_URL "$KITEMESH_NATS_URL"
        add_text KITEMESH_MONGO_URL "$KITEMESH_MONGO_URL"
        if [ "$service" = gateway ]; then add_text KITEMESH_KEY_PEPPER "$KITEMESH_KEY_PEPPER"; fi
    )
done

(
    . "$access/operator.env"
    begin kitemesh-operator
    add_text KITEMESH_NATS_URL "$KITEMESH_NATS_URL"
    add_text KITEMESH_MONGO_URL "$admin_url"
    add_text KITEMESH_KEY_PEPPER "$KITEMESH_KEY_PEPPER"
)

begin kitemesh-nats-users
add_file "$access/nats-users.conf"

begin kitemesh-access
for name in passwords.json nats-users.conf \
    gateway.env orchestrator.env model-runner.env tool-executor.env operator.env; do
    add_file "$access/$name"
done
