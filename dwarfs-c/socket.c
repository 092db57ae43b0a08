// SPDX-License-Identifier: MIT OR Apache-2.0
/* Socket: a chunk of data goes back and forth between two processes through TCP or UDP, on the
 * loopback interface unless an address is given, or, beside them, through a Unix socket or a pair of pipes. The counterpart
 * of sync.c: each side fills the chunk at its turn, a turn is one way, and the first turns are
 * checked and not timed. */
#include "common/measure.h"
#include "common/watch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Turns of each side before the clock starts, in which what the peer sent is checked. */
#define WARM_UP 100
/* The most that one UDP packet over IPv4 carries. */
#define UDP_MAX 65507
/* What the client sends, and what the server sends. */
#define CLIENT_BYTE 1
#define SERVER_BYTE 2

/* A way to the peer: one descriptor to read, one to write, which for sockets are the same. */
struct way {
	int in;
	int out;
};

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: socket tcp|udp server|client --port PORT [--host ADDRESS] [OPTIONS]\n"
			"       socket unix|pipe server|client --path PATH [OPTIONS]\n"
			"options: [--size BYTES] [--iters N] [--batches N] [--pin]\n"
			"Start the server first; with --port 0 it takes a free port and says which. --host\n"
			"is the IPv4 address of the server, for both; without it they are on one host.\n");
	exit(2);
}

/* Where the server is. */
struct place {
	const char *host;
	long port;
	const char *path;
};

static struct sockaddr_in internet(const struct place *place)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)place->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	if (place->host && inet_pton(AF_INET, place->host, &address.sin_addr) != 1)
		fail("--host %s: not an IPv4 address such as 192.0.2.1", place->host);
	return address;
}

static void no_delay(int fd)
{
	const int yes = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0)
		fail("setsockopt(TCP_NODELAY): %s", strerror(errno));
}

static int new_socket(int family, int type)
{
	const int yes = 1;
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket: %s", strerror(errno));
	if (family == AF_INET && type == SOCK_STREAM) {
		if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0)
			fail("setsockopt(SO_REUSEADDR): %s", strerror(errno));
		no_delay(fd);
	}
	return fd;
}

/* Lets one client in and nobody else. */
static int accept_one(int fd)
{
	int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (peer < 0)
		fail("no client came: %s", strerror(errno));
	close(fd);
	return peer;
}

/* A socket that is connected to the one client that comes by TCP or UDP. */
static int serve_port(int type, const struct place *place)
{
	struct sockaddr_in address = internet(place);
	socklen_t length = sizeof address;
	char first;
	int fd = new_socket(AF_INET, type);

	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("bind to port %ld: %s", place->port, strerror(errno));
	if (type == SOCK_STREAM && listen(fd, 1) < 0)
		fail("listen: %s", strerror(errno));
	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		fail("getsockname: %s", strerror(errno));
	printf("listening on port %u\n", ntohs(address.sin_port));
	if (type == SOCK_STREAM) {
		fd = accept_one(fd);
		/* It is inherited on Linux, and matters too much to rely on that. */
		no_delay(fd);
		return fd;
	}
	/* The first packet says who the client is; it stays in the queue for its turn. */
	if (recvfrom(fd, &first, 1, MSG_PEEK, (struct sockaddr *)&address, &length) < 0)
		fail("no client came: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect: %s", strerror(errno));
	return fd;
}

static int reach_port(int type, const struct place *place)
{
	struct sockaddr_in address = internet(place);
	int fd = new_socket(AF_INET, type);

	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect to port %ld: %s; is the server there?", place->port,
		     strerror(errno));
	return fd;
}

static struct sockaddr_un named(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof address.sun_path)
		fail("--path: a Unix socket's has at most %zu bytes", sizeof address.sun_path - 1);
	memcpy(address.sun_path, path, strlen(path));
	return address;
}

static int serve_unix(const char *path)
{
	struct sockaddr_un address = named(path);
	int fd = new_socket(AF_UNIX, SOCK_STREAM);

	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("bind to %s: %s", path, strerror(errno));
	if (listen(fd, 1) < 0)
		fail("listen: %s", strerror(errno));
	printf("listening on %s\n", path);
	fd = accept_one(fd);
	unlink(path);
	return fd;
}

static int reach_unix(const char *path)
{
	struct sockaddr_un address = named(path);
	int fd = new_socket(AF_UNIX, SOCK_STREAM);

	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect to %s: %s; is the server there?", path, strerror(errno));
	return fd;
}

static int open_pipe(const char *path, int mode)
{
	int fd = open(path, mode | O_CLOEXEC);

	if (fd < 0)
		fail("%s: %s", path, strerror(errno));
	return fd;
}

/* Two named pipes, PATH.up to the server and PATH.down to the client. */
static struct way pipes(bool client, const char *path)
{
	char up[4096], down[4096];
	struct way way;

	if (snprintf(up, sizeof up, "%s.up", path) >= (int)sizeof up ||
	    snprintf(down, sizeof down, "%s.down", path) >= (int)sizeof down)
		fail("--path is too long");
	if (client) {
		way.out = open_pipe(up, O_WRONLY);
		way.in = open_pipe(down, O_RDONLY);
		return way;
	}
	if (mkfifo(up, 0600) < 0 || mkfifo(down, 0600) < 0)
		fail("mkfifo of %s.up and %s.down: %s", path, path, strerror(errno));
	printf("listening on %s\n", path);
	way.in = open_pipe(up, O_RDONLY);
	way.out = open_pipe(down, O_WRONLY);
	unlink(up);
	unlink(down);
	return way;
}

static void put(struct way way, const unsigned char *data, size_t size)
{
	while (size > 0) {
		ssize_t sent = write(way.out, data, size);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			fail("send: %s", strerror(errno));
		data += sent;
		size -= (size_t)sent;
	}
}

static void get(struct way way, unsigned char *data, size_t size)
{
	while (size > 0) {
		ssize_t got = read(way.in, data, size);

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

struct side {
	struct way way;
	bool client;
	unsigned char *data;
	size_t size;
	bool check;
};

/* So many times there and back again. */
static uint64_t take_turns(void *with, uint64_t turns)
{
	const struct side side = *(const struct side *)with;
	const int mine = side.client ? CLIENT_BYTE : SERVER_BYTE;
	const int theirs = side.client ? SERVER_BYTE : CLIENT_BYTE;

	for (uint64_t i = 0; i < turns; i++) {
		moves++;
		if (side.client) {
			memset(side.data, mine, side.size);
			put(side.way, side.data, side.size);
		}
		get(side.way, side.data, side.size);
		if (side.check && !filled_with(side.data, theirs, side.size))
			fail("turn %llu: what came is not what the peer sends",
			     (unsigned long long)i);
		if (!side.client) {
			memset(side.data, mine, side.size);
			put(side.way, side.data, side.size);
		}
	}
	return turns;
}

/* Connects the two as `kind` says. */
static struct way connected(const char *kind, bool client, const struct place *place)
{
	int type = strcmp(kind, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
	int fd;

	if (strcmp(kind, "pipe") == 0)
		return pipes(client, place->path);
	if (strcmp(kind, "unix") == 0)
		fd = client ? reach_unix(place->path) : serve_unix(place->path);
	else
		fd = client ? reach_port(type, place) : serve_port(type, place);
	return (struct way){.in = fd, .out = fd};
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'}, {"path", required_argument, NULL, 'f'},
		{"host", required_argument, NULL, 'h'},
		{"size", required_argument, NULL, 's'}, {"iters", required_argument, NULL, 'n'},
		{"batches", required_argument, NULL, 'b'}, {"pin", no_argument, NULL, 'c'},
		{0},
	};
	struct measure measured = {.iters = 10000, .batches = 1};
	struct side side = {.size = 8, .check = true};
	bool by_port, by_path, on_own_core = false;
	struct place place = {.port = -1};
	const char *kind;
	int option;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			place.port = (long)number(optarg, 0, UINT16_MAX, usage);
			break;
		case 'f':
			place.path = optarg;
			break;
		case 'h':
			place.host = optarg;
			break;
		case 's':
			side.size = number(optarg, 1, UINT64_C(1) << 30, usage);
			break;
		case 'n':
			measured.iters = number(optarg, 1, UINT64_C(1) << 40, usage);
			break;
		case 'b':
			measured.batches = number(optarg, 1, BATCHES_MAX, usage);
			break;
		case 'c':
			on_own_core = true;
			break;
		default:
			usage();
		}
	}
	if (argc - optind != 2)
		usage();
	kind = argv[optind];
	by_port = strcmp(kind, "tcp") == 0 || strcmp(kind, "udp") == 0;
	by_path = strcmp(kind, "unix") == 0 || strcmp(kind, "pipe") == 0;
	if (!(by_port && place.port >= 0 && !place.path) &&
	    !(by_path && place.path && place.port < 0 && !place.host))
		usage();
	side.client = strcmp(argv[optind + 1], "client") == 0;
	if (!side.client && strcmp(argv[optind + 1], "server") != 0)
		usage();
	if (strcmp(kind, "udp") == 0 && side.size > UDP_MAX)
		fail("a UDP packet carries at most %d bytes; give a smaller --size", UDP_MAX);

	side.data = malloc(side.size);
	if (!side.data)
		fail("no memory for %zu bytes", side.size);
	if (on_own_core)
		pin(side.client);
	signal(SIGPIPE, SIG_IGN);
	watch();
	side.way = connected(kind, side.client, &place);
	take_turns(&side, WARM_UP);
	side.check = false;
	measure(&measured, take_turns, &side);
	print_batches(&measured, 2);
	printf("%zu bytes, %llu turns: %.1f ns a turn\n", side.size,
	       (unsigned long long)(2 * measured.iters), mean_ns(&measured, 2));
	free(side.data);
	return 0;
}
