#!/bin/busybox sh
# The first process of the nested machine: loads what KVM and taps need, runs every script of /cases in the order of their names, and
# powers off. What a script prints, and its status, stand between two lines that name it.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
dmesg -n 1
for module in irqbypass kvm kvm-amd tun; do
    insmod /modules/$module.ko
done
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
tunctl -t tap0 >/dev/null
ifconfig lo 127.0.0.1 up
ifconfig tap0 10.0.0.1 netmask 255.255.255.0 up

for script in /cases/*; do
    name=${script##*/}
    echo
    echo ">>> $name"
    timeout -s KILL 120 sh "$script" 2>&1 </dev/null
    status=$?
    echo
    echo "<<< $name $status"
    # Left by a script that was ended; this machine runs nothing else.
    killall -q -KILL tender
done
echo
echo "--- all cases ran"
poweroff -f
