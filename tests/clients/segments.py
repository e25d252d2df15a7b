"""segments.py ADDRESS SIZE: sends standard input (hexadecimal) to port 53 in one call that the kernel cuts into
datagrams of SIZE octets (UDP_SEGMENT), then prints each answer in hexadecimal until a second is silent."""
import socket
import sys

UDP_SEGMENT = 103
address, size = sys.argv[1], int(sys.argv[2])
server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
server.connect((address, 53))
server.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
server.send(bytes.fromhex(sys.stdin.read().strip()))
server.settimeout(1)
try:
    while True:
        print(server.recv(65535).hex())
except TimeoutError:
    pass
