#!/bin/bash
# What runs the test's commands inside the machine. A line is "NUMBER COMMAND" with the command in base64; the answer is
# "NUMBER STATUS OUTPUT" with the output in base64. Not in Python, which one of the tests breaks.
exec 3<>/dev/virtio-ports/autokmod.test
export HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER=cat SYSTEMD_COLORS=0
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /root || exit
output=/run/test-agent.output
echo "up $(uname -r)" >&3
while read -r number command <&3; do
    bash -c "$(base64 -d <<<"$command")" 3>&- </dev/null >"$output" 2>&1
    echo "$number $? $(base64 -w0 <"$output")" >&3
done
