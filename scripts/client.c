/* The client of scripts/bench.py: does one thing to many files and prints the mean time of it in microseconds.
 *
 * usage: client read|stat ROUNDS FILE...
 *
 * read is open, one read of 4096 bytes and close; stat is stat(2).  A first round is not timed.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int read_file(const char *file)
{
	char text[4096];
	int fd = open(file, O_RDONLY), failed;

	if (fd < 0)
		return -1;
	failed = read(fd, text, sizeof(text)) < 0;
	return close(fd) || failed ? -1 : 0;
}

static int stat_file(const char *file)
{
	struct stat st;

	return stat(file, &st);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	int (*action)(const char *) = argc > 1 && !strcmp(argv[1], "stat") ? stat_file : read_file;
	int rounds = argc > 3 ? atoi(argv[2]) : 0;
	double begin = 0;

	if (rounds < 1) {
		fprintf(stderr, "usage: client read|stat ROUNDS FILE...\n");
		return 2;
	}
	for (int round = 0; round <= rounds; round++) {
		if (round == 1)
			begin = now_us();
		for (int i = 3; i < argc; i++)
			if (action(argv[i])) {
				perror(argv[i]);
				return 1;
			}
	}
	printf("%.3f\n", (now_us() - begin) / rounds / (argc - 3));
	return 0;
}
