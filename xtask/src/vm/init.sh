#!/bin/dash
# The first process of the virtual machine: mounts, modules, then each test program of /tests/list. What it says goes
# to the second serial line, which begins with "@@boot" and ends with "@@end"; the console is the first one.
export PATH=/sbin:/bin HOME=/tmp TERM=dumb DNSPATH_BIN=/tests/dnspath
[ ! -d /tests/containerd ] || export DNSPATH_CONTAINERD=/tests/containerd
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
mkdir -p /run/netns
# Lines end as they were written.
stty -F /dev/ttyS1 -opost
exec > /dev/ttyS1 2>&1 < /dev/null
echo "@@boot $(cut -d' ' -f1 /proc/uptime)"
while read -r module; do
  insmod "/modules/$module.ko" || echo "cannot load the module $module"
done < /modules/order
ip link set lo up
while read -r program arguments; do
  # The arguments are words.
  "/tests/$program" $arguments
  echo "@@status $program $?"
done < /tests/list
dmesg | grep -E 'Oops|BUG:|WARNING:' | sed 's/^/@@kernel /'
echo "@@end $(cut -d' ' -f1 /proc/uptime)"
echo o > /proc/sysrq-trigger
sleep 60
