// SPDX-License-Identifier: MIT OR Apache-2.0
/* Socket: a chunk of data goes back and forth between two processes through TCP or UDP on the
 * loopback interface. The counterpart of sync.c: each side fills the chunk at its turn, a turn
 * is one way, and the first turns are checked and not timed. */
#define _GNU_SOURCE
#include "dwarfs.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* Turns of each side before the clock starts, in which what the peer sent is checked. */
#define WARM_UP 100
/* The most that one UDP packet over IPv4 carries. */
#define UDP_MAX 65507
/* What the client sends, and what the server sends. */
#define CLIENT_BYTE 1
#define SERVER_BYTE 2

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: socket tcp|udp server|client --port PORT [--size BYTES] [--iters N]\n"
			"Start the server first; with --port 0 it takes a free port and says which.\n");
	exit(2);
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

static int new_socket(int type)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	const int yes = 1;
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket: %s", strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
		fail("setsockopt(SO_RCVTIMEO): %s", strerror(errno));
	if (type == SOCK_STREAM &&
	    (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
	     setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0))
		fail("setsockopt: %s", strerror(errno));
	return fd;
}

static void say_port(int fd)
{
	struct sockaddr_in address;
	socklen_t length = sizeof address;

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		fail("getsockname: %s", strerror(errno));
	printf("listening on port %u\n", ntohs(address.sin_port));
}

/* Returns a socket that is connected to the one client. */
static int serve(int type, uint16_t port)
{
	struct sockaddr_in address = loopback(port);
	socklen_t length = sizeof address;
	const int yes = 1;
	char first;
	int fd = new_socket(type), peer;

	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("bind to port %u: %s", port, strerror(errno));
	if (type == SOCK_STREAM) {
		if (listen(fd, 1) < 0)
			fail("listen: %s", strerror(errno));
		say_port(fd);
		peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (peer < 0)
			fail("no client came: %s", strerror(errno));
		/* The listener's receive timeout and TCP_NODELAY are inherited on Linux; the
		 * latter matters too much to rely on it. */
		if (setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0)
			fail("setsockopt(TCP_NODELAY): %s", strerror(errno));
		close(fd);
		return peer;
	}
	say_port(fd);
	/* The first packet says who the client is; it stays in the queue for its turn. */
	if (recvfrom(fd, &first, 1, MSG_PEEK, (struct sockaddr *)&address, &length) < 0)
		fail("no client came: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect: %s", strerror(errno));
	return fd;
}

static int reach(int type, uint16_t port)
{
	struct sockaddr_in address = loopback(port);
	int fd = new_socket(type);

	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect to port %u: %s; is the server there?", port, strerror(errno));
	return fd;
}

static void put(int fd, const unsigned char *data, size_t size)
{
	while (size > 0) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			fail("send: %s", strerror(errno));
		data += sent;
		size -= (size_t)sent;
	}
}

static void get(int fd, unsigned char *data, size_t size)
{
	while (size > 0) {
		ssize_t got = recv(fd, data, size, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail("receive: %s", strerror(errno));
		if (got == 0)
			fail("the peer has closed the connection");
		data += got;
		size -= (size_t)got;
	}
}

/* `turns` times there and back again. */
static void take_turns(int fd, bool client, unsigned char *data, size_t size, uint64_t turns,
		       bool check)
{
	const int mine = client ? CLIENT_BYTE : SERVER_BYTE;
	const int theirs = client ? SERVER_BYTE : CLIENT_BYTE;

	for (uint64_t i = 0; i < turns; i++) {
		if (client) {
			memset(data, mine, size);
			put(fd, data, size);
		}
		get(fd, data, size);
		if (check && !filled_with(data, theirs, size))
			fail("turn %llu: what came is not what the peer sends",
			     (unsigned long long)i);
		if (!client) {
			memset(data, mine, size);
			put(fd, data, size);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},
		{"size", required_argument, NULL, 's'},
		{"iters", required_argument, NULL, 'n'},
		{0},
	};
	uint64_t size = 8, iters = 10000;
	long port = -1;
	int option, type, fd;
	unsigned char *data;
	int64_t start, end;
	bool client;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			port = (long)number(optarg, 0, UINT16_MAX, usage);
			break;
		case 's':
			size = number(optarg, 1, UINT64_C(1) << 30, usage);
			break;
		case 'n':
			iters = number(optarg, 1, UINT64_C(1) << 40, usage);
			break;
		default:
			usage();
		}
	}
	if (port < 0 || argc - optind != 2)
		usage();
	if (strcmp(argv[optind], "tcp") == 0)
		type = SOCK_STREAM;
	else if (strcmp(argv[optind], "udp") == 0)
		type = SOCK_DGRAM;
	else
		usage();
	client = strcmp(argv[optind + 1], "client") == 0;
	if (!client && strcmp(argv[optind + 1], "server") != 0)
		usage();
	if (type == SOCK_DGRAM && size > UDP_MAX)
		fail("a UDP packet carries at most %d bytes; give a smaller --size", UDP_MAX);

	data = malloc(size);
	if (!data)
		fail("no memory for %llu bytes", (unsigned long long)size);
	fd = client ? reach(type, (uint16_t)port) : serve(type, (uint16_t)port);
	take_turns(fd, client, data, size, WARM_UP, true);
	start = now_ns();
	take_turns(fd, client, data, size, iters, false);
	end = now_ns();
	printf("%llu bytes, %llu turns: %.1f ns a turn\n", (unsigned long long)size,
	       (unsigned long long)(2 * iters), (double)(end - start) / (2.0 * (double)iters));
	free(data);
	return 0;
}
