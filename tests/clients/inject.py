"""inject.py INTERFACE: sends the frames on standard input, one a line in hexadecimal; prints how many."""
import socket
import sys
import time

link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((sys.argv[1], 0))
sent = 0
for line in sys.stdin:
    frame = bytes.fromhex(line.strip())
    while True:
        try:
            link.send(frame)
            break
        except OSError as error:
            if error.errno != 105:  # ENOBUFS: the link's queue is full
                raise
            time.sleep(0.001)
    sent += 1
print(sent)
