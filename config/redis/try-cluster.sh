#!/usr/bin/env bash
# Three Redis nodes on this machine, as one cluster, to try Throng on. Each keeps its data below DIR.
#   config/redis/try-cluster.sh start [DIR]     DIR: ./data/redis; ports from PORT, 7101 unless set
#   config/redis/try-cluster.sh stop [DIR]
set -euo pipefail
command="${1:-}"
dir="${2:-data/redis}"
first="${PORT:-7101}"
conf="$(cd "$(dirname "$0")" && pwd)/redis.conf"
command -v redis-server >/dev/null || { echo "redis-server is missing: sudo apt-get install redis-server" >&2; exit 1; }
case "$command" in
  start)
    nodes=()
    for n in 0 1 2; do
      port=$((first + n))
      mkdir -p "$dir/$port"
      if redis-cli -p "$port" ping >/dev/null 2>&1; then
        echo "port $port is taken: stop what has it, or set PORT" >&2; exit 1
      fi
      redis-server "$conf" --port "$port" --dir "$(cd "$dir/$port" && pwd)" --pidfile redis.pid \
        --daemonize yes --logfile redis.log --cluster-enabled yes --cluster-require-full-coverage no \
        --maxmemory 256mb
      nodes+=("127.0.0.1:$port")
    done
    for node in "${nodes[@]}"; do
      until redis-cli -p "${node##*:}" ping >/dev/null 2>&1; do sleep 0.1; done
    done
    # A cluster that was stopped comes back by itself.
    if redis-cli -p "$first" cluster info | grep -q cluster_known_nodes:1; then
      redis-cli --cluster create "${nodes[@]}" --cluster-yes >/dev/null
    fi
    for node in "${nodes[@]}"; do
      until redis-cli -p "${node##*:}" cluster info | grep -q cluster_state:ok; do sleep 0.1; done
    done
    echo "redis://${nodes[0]},redis://${nodes[1]},redis://${nodes[2]}"
    ;;
  stop)
    for pid in "$dir"/*/redis.pid; do
      [ -e "$pid" ] && kill "$(cat "$pid")"
    done
    ;;
  *)
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
    ;;
esac
