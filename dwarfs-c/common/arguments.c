// SPDX-License-Identifier: MIT OR Apache-2.0
/* See arguments.h. */
#include "arguments.h"

#include <float.h>
#include <getopt.h>
#include <math.h>
#include <sys/mman.h>

#define BY_HAND "--rank R --of N --key KEY"
#define TEAM "[--wait spin|semaphore] [--pin]"

static const char *const workers_usage[] = {
	[SERIAL] = "\n",
	[SYSV] = " [WORKERS]\n"
		 "WORKERS: --workers N " TEAM "             N are forked, or\n"
		 "         " BY_HAND " " TEAM "  each is started by hand: R from 0 to N-1\n",
	[OPENMP] = " [--workers N]\n"
		   "Its threads are on cores of their own with OMP_PROC_BIND=true.\n",
	[MPI] = "\nStart it with mpiexec -n N.\n",
	[HYBRID] = " " BY_HAND " " TEAM "\n"
		   "Start rank 0 of each host with mpiexec, and the others on that host beside it. Each\n"
		   "host has as many, and where hosts share a kernel, a key of its own.\n",
};

/* What usage() needs, which gets no arguments. */
static const struct dwarf *reading;
static enum variant reading_variant;

__attribute__((noreturn)) static void usage(void)
{
	fprintf(stderr, "usage: %s [--size N] [--iters N] [--batches N]%s%s",
		program_invocation_short_name, reading->usage, workers_usage[reading_variant]);
	exit(2);
}

static double positive(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !isfinite(value) || value < 0) {
		fprintf(stderr, "%s: '%s' is no number from 0 on\n", program_invocation_short_name,
			text);
		usage();
	}
	return value;
}

/* Which of two words it is: 0 or 1. */
static int word(const char *text, const char *zero, const char *one)
{
	if (strcmp(text, zero) == 0)
		return 0;
	if (strcmp(text, one) == 0)
		return 1;
	fprintf(stderr, "%s: '%s' is neither %s nor %s\n", program_invocation_short_name, text, zero,
		one);
	usage();
}

/* Whether the workers have been given in one of the ways that the variant has. */
static bool fits(const struct team_options *team, bool forked, bool by_hand, enum variant variant)
{
	if (forked && by_hand)
		return false;
	if (by_hand)
		return (variant == SYSV || variant == HYBRID) && team->rank >= 0 &&
		       team->rank < team->size && team->key != IPC_PRIVATE;
	if (variant == HYBRID)
		return false;
	return !forked || variant == SYSV || variant == OPENMP;
}

struct arguments arguments_of(int argc, char **argv, const struct dwarf *dwarf, enum variant variant)
{
	static const struct option options[] = {
		{"size", required_argument, NULL, 's'},    {"iters", required_argument, NULL, 'n'},
		{"batches", required_argument, NULL, 'b'}, {"dims", required_argument, NULL, 'd'},
		{"type", required_argument, NULL, 't'},    {"until", required_argument, NULL, 'u'},
		{"workers", required_argument, NULL, 'w'}, {"rank", required_argument, NULL, 'r'},
		{"of", required_argument, NULL, 'o'},      {"key", required_argument, NULL, 'k'},
		{"wait", required_argument, NULL, 'W'},    {"pin", no_argument, NULL, 'p'},
		{0},
	};
	struct arguments arguments = dwarf->standard;
	struct team_options *team = &arguments.team;
	bool forked = false, by_hand = false;
	int option;

	reading = dwarf;
	reading_variant = variant;
	arguments.measure.batches = 1;
	*team = (struct team_options){.rank = -1, .size = 1, .key = IPC_PRIVATE};
	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (strchr("dtu", option) && !strchr(dwarf->takes, option))
			usage();
		if (strchr("Wp", option) && variant != SYSV && variant != HYBRID)
			usage();
		switch (option) {
		case 's':
			arguments.size = number(optarg, 1, dwarf->size_max, usage);
			break;
		case 'n':
			arguments.measure.iters = number(optarg, 1, UINT64_C(1) << 40, usage);
			break;
		case 'b':
			arguments.measure.batches = number(optarg, 1, BATCHES_MAX, usage);
			break;
		case 'd':
			arguments.dims = (unsigned)number(optarg, 2, 3, usage);
			break;
		case 't':
			arguments.single = word(optarg, "double", "float");
			break;
		case 'u':
			arguments.until = positive(optarg);
			break;
		case 'w':
			team->size = (int)number(optarg, 1, TEAM_MAX, usage);
			forked = true;
			break;
		case 'r':
			team->rank = (int)number(optarg, 0, TEAM_MAX - 1, usage);
			by_hand = true;
			break;
		case 'o':
			team->size = (int)number(optarg, 1, TEAM_MAX, usage);
			by_hand = true;
			break;
		case 'k':
			team->key = (key_t)number(optarg, 1, UINT32_MAX, usage);
			by_hand = true;
			break;
		case 'W':
			team->wait = word(optarg, "spin", "semaphore") ? TEAM_SEMAPHORE : TEAM_SPIN;
			break;
		case 'p':
			team->pin = true;
			break;
		default:
			usage();
		}
	}
	if (optind != argc || !fits(team, forked, by_hand, variant))
		usage();
	if (arguments.measure.batches > arguments.measure.iters) {
		fprintf(stderr, "%s: there are more batches than iterations\n",
			program_invocation_short_name);
		usage();
	}
	return arguments;
}

void *allocate(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		fail("no memory for %zu bytes", bytes);
	return memory;
}

void print_result(const char *name, double value)
{
	printf("%s = %.*g\n", name, DBL_DECIMAL_DIG, value);
}

void print_times(const struct arguments *arguments, int workers, int64_t setup_ns)
{
	const struct measure *measure = &arguments->measure;

	print_batches(measure, 1);
	printf("size %llu, %llu iterations, %d %s: set-up %.1f us, %.1f ns an iteration\n",
	       (unsigned long long)arguments->size, (unsigned long long)measure->iters, workers,
	       workers == 1 ? "worker" : "workers", (double)setup_ns / 1e3, mean_ns(measure, 1));
}
