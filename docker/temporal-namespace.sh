#!/bin/sh
# Wait for the Temporal server, then make the namespace and its search attributes, then exit. Safe to run again.
# Reads TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, as the temporal program does, and RETENTION (30 days: how long the history
# of a closed incident can be read in the Temporal UI; at least as long as people look back at incidents).
set -eu

: "${TEMPORAL_ADDRESS:?must be the host:port of the Temporal frontend}"
: "${TEMPORAL_NAMESPACE:=default}"
: "${RETENTION:=720h}"
: "${WAIT_SECONDS:=180}"
export TEMPORAL_ADDRESS

waited=0
until temporal operator cluster health >/dev/null 2>&1; do
    if [ "$waited" -ge "$WAIT_SECONDS" ]; then
        echo "Temporal at $TEMPORAL_ADDRESS was not healthy within $WAIT_SECONDS s." >&2
        exit 1
    fi
    echo "Waiting for Temporal at $TEMPORAL_ADDRESS ($waited s)"
    sleep 2
    waited=$((waited + 2))
done

if temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
    temporal operator namespace update --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION" >/dev/null
    echo "Namespace $TEMPORAL_NAMESPACE is there; closed workflows are kept for $RETENTION."
else
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION" >/dev/null
    echo "Namespace $TEMPORAL_NAMESPACE made; closed workflows are kept for $RETENTION."
fi

# A namespace that was just made reaches every part of the server within its cache's refresh (10 s by default).
for name in InfrasageService InfrasageSeverity InfrasageStatus InfrasageRunbook; do
    tries=0
    until temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" 2>/dev/null | grep -qw "$name"; do
        if [ "$tries" -ge 30 ]; then
            echo "The search attribute $name could not be registered." >&2
            exit 1
        fi
        temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type Keyword >/dev/null 2>&1 || sleep 1
        tries=$((tries + 1))
    done
    echo "Search attribute $name is there."
done
