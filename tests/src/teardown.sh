# teardown PREFIX DIRECTORY: ends every process in the namespaces PREFIX-*, deletes them, removes DIRECTORY.
# Waits first until standard input closes: that is when the owner lets go, or is gone, however it ended.
trap '' HUP INT QUIT TERM PIPE
cat > /dev/null
names=$(cd /run/netns 2> /dev/null && ls -d "$1"-* 2> /dev/null)
for round in 1 2 3 4 5 6 7 8 9 10; do
  left=
  for name in $names; do
    pids=$(ip netns pids "$name" 2> /dev/null)
    # Only pids that are in the lab's own namespaces, so only its own processes.
    [ -n "$pids" ] && kill -KILL $pids 2> /dev/null && left=yes
  done
  [ -z "$left" ] && break
  sleep 0.02
done
for name in $names; do
  ip netns delete "$name" 2> /dev/null
done
rm -rf -- "$2"
exit 0
