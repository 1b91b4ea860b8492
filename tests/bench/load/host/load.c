// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Request and response over TCP between two network namespaces (RR), and the same with a connection for each (CRR).
 *
 * It is one process, and all of it is on one CPU: then its CPU clock and that of the CPU's ksoftirqd hold all that an
 * operation costs, both ends and the softirqs between them, and neither end waits for a CPU to wake up. Each connection
 * has a thread at either end, and all calls block, as processes of netperf do. Whatever fails ends the process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <errno.h>

#include "histogram.h"

#define MAX_CONNECTIONS 256
#define MAX_MESSAGE	(64 << 20)
#define BUFFER		65536
#define MAX_BESIDE	64
#define FIRST_PORT	10000 /* clients' own ports of CRR, one after the other */
#define PORTS		50000
#define STACK		(256 << 10)

struct moment {
	uint64_t wall, cpu, softirq, beside, switches; /* ns, and context switches */
};

static struct {
	int crr;
	int connections;
	size_t request, response; /* bytes */
	uint64_t warm, duration;  /* ns */
	int softirq;		  /* schedstat of ksoftirqd, or -1 */
	int besides;
	clockid_t beside[MAX_BESIDE]; /* CPU clocks of processes whose work is the load's, too */
	int listener;
	struct sockaddr_in server;
	atomic_uint port;	     /* clients' next, from FIRST_PORT */
	pthread_barrier_t everybody; /* clients and the main thread */
	pthread_barrier_t clients;
	struct moment start, end;
	struct histogram each[MAX_CONNECTIONS]; /* of clients, in this measurement */
	struct histogram now, ever;
} run;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void check(int failed, const char *what)
{
	if (failed)
		die(what);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	check(clock_gettime(id, &t), "read a clock");
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t softirq_ns(void)
{
	char text[128] = "";

	if (run.softirq < 0)
		return 0;
	check(pread(run.softirq, text, sizeof(text) - 1, 0) <= 0, "read the CPU time of ksoftirqd");
	return strtoull(text, NULL, 10);
}

static uint64_t beside_ns(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < run.besides; i++)
		sum += clock_ns(run.beside[i]);
	return sum;
}

/* The caller runs on the CPU of all others, so none of them is running, and their clocks are up to date. */
static void take(struct moment *m)
{
	struct rusage usage;

	check(getrusage(RUSAGE_SELF, &usage), "getrusage");
	*m = (struct moment){
		.wall = clock_ns(CLOCK_MONOTONIC),
		.cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID),
		.softirq = softirq_ns(),
		.beside = beside_ns(),
		.switches = usage.ru_nvcsw + usage.ru_nivcsw,
	};
}

/* All clients meet between two operations of their own, and one of them looks at the clocks. */
static void meet(struct moment *m)
{
	if (pthread_barrier_wait(&run.clients) == PTHREAD_BARRIER_SERIAL_THREAD)
		take(m);
	pthread_barrier_wait(&run.clients);
}

static size_t at_once(size_t left)
{
	return left < BUFFER ? left : BUFFER;
}

/* Nobody looks at what is sent: a long message is the buffer, again and again. */
static void send_all(int fd, const char *buffer, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd, buffer, at_once(n), MSG_NOSIGNAL);

		check(sent <= 0, "send");
		n -= sent;
	}
}

/* Reads a whole message; 0 where the other end closed instead of beginning one. */
static int receive_all(int fd, char *buffer, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t more = recv(fd, buffer, at_once(n - got), 0);

		check(more < 0, "receive");
		if (more == 0 && got == 0)
			return 0;
		if (more == 0) {
			fprintf(stderr, "receive: the other end closed in mid-message\n");
			exit(1);
		}
		got += more;
	}
	return 1;
}

static void no_delay(int fd)
{
	int on = 1;

	check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), "TCP_NODELAY");
}

static void *serve(void *unused)
{
	char buffer[BUFFER] = {};

	(void)unused;
	for (;;) {
		int fd = accept(run.listener, NULL, NULL);

		check(fd < 0, "accept");
		if (!run.crr)
			no_delay(fd);
		while (receive_all(fd, buffer, run.request))
			send_all(fd, buffer, run.response);
		close(fd);
	}
	return NULL;
}

/*
 * In CRR every connection has the next port: the kernel's own choice would come back to one that waits (TIME_WAIT is at
 * the client, which closes first) and search longer the more of them there are. Ports of other programs are passed over;
 * reuse is up to net.ipv4.tcp_tw_reuse.
 */
static void bind_next(int fd)
{
	struct sockaddr_in own = {.sin_family = AF_INET};
	int on = 1;

	check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
	do {
		own.sin_port = htons(FIRST_PORT + atomic_fetch_add(&run.port, 1) % PORTS);
		errno = 0;
	} while (bind(fd, (struct sockaddr *)&own, sizeof(own)) && errno == EADDRINUSE);
	check(errno != 0, "bind a client's port");
}

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd < 0, "socket");
	if (run.crr)
		bind_next(fd);
	check(connect(fd, (struct sockaddr *)&run.server, sizeof(run.server)), "connect");
	return fd;
}

static void ask(int fd, char *buffer)
{
	send_all(fd, buffer, run.request);
	if (!receive_all(fd, buffer, run.response)) {
		fprintf(stderr, "receive: the server closed instead of an answer\n");
		exit(1);
	}
}

/* connected is the socket of RR; CRR makes one for each operation. The end of one is the beginning of the next. */
static void operate(struct histogram *h, int connected, char *buffer, uint64_t until)
{
	for (uint64_t then, now = clock_ns(CLOCK_MONOTONIC); now < until;) {
		int fd = run.crr ? dial() : connected;

		ask(fd, buffer);
		if (run.crr)
			close(fd);
		then = now;
		now = clock_ns(CLOCK_MONOTONIC);
		if (h)
			record(h, now - then);
	}
}

static void *client(void *histogram)
{
	char buffer[BUFFER] = {};
	int fd = -1;

	if (!run.crr) {
		fd = dial();
		no_delay(fd);
	}
	for (;;) {
		pthread_barrier_wait(&run.everybody);
		operate(NULL, fd, buffer, clock_ns(CLOCK_MONOTONIC) + run.warm);
		meet(&run.start);
		operate(histogram, fd, buffer, run.start.wall + run.duration);
		meet(&run.end);
		pthread_barrier_wait(&run.everybody);
	}
	return NULL;
}

static void enter(int fd)
{
	check(setns(fd, CLONE_NEWNET), "enter a network namespace");
}

static void listen_there(void)
{
	int on = 1;

	run.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(run.listener < 0, "socket");
	check(setsockopt(run.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
	check(bind(run.listener, (struct sockaddr *)&run.server, sizeof(run.server)),
	      "bind the server's address");
	check(listen(run.listener, 1024), "listen");
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(sched_setaffinity(0, sizeof(set), &set), "stay on one CPU");
}

static void start(void *(*f)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	errno = pthread_create(&thread, &attr, f, arg);
	check(errno != 0, "start a thread");
	pthread_attr_destroy(&attr);
}

static void print_quantiles(const char *name, const struct histogram *h)
{
	printf(",\"%s\":{\"P50\":%lu,\"P99\":%lu,\"P999\":%lu,\"Max\":%lu}", name, quantile(h, 0.5),
	       quantile(h, 0.99), quantile(h, 0.999), h->max);
}

static void print(void)
{
	memset(&run.now, 0, sizeof(run.now));
	for (int c = 0; c < run.connections; c++)
		add(&run.now, &run.each[c]);
	add(&run.ever, &run.now);
	printf("{\"Operations\":%lu,\"Ports\":%u,\"Wall\":%lu,\"Process\":%lu,\"Softirq\":%lu,\"Beside\":%lu,"
	       "\"Switches\":%lu",
	       total(&run.now), run.port, run.end.wall - run.start.wall, run.end.cpu - run.start.cpu,
	       run.end.softirq - run.start.softirq, run.end.beside - run.start.beside,
	       run.end.switches - run.start.switches);
	print_quantiles("Latency", &run.now);
	print_quantiles("Ever", &run.ever);
	puts("}");
	fflush(stdout);
}

static void too_late(int signal)
{
	static const char text[] = "no end: a request or its answer does not get through\n";

	(void)signal;
	_exit(write(2, text, sizeof(text) - 1) < 0 ? 2 : 1);
}

/* What does not come to its end is one, with a word. */
static void measure(void)
{
	memset(run.each, 0, run.connections * sizeof(run.each[0]));
	alarm((run.warm + run.duration) / 1000000000 + 10);
	pthread_barrier_wait(&run.everybody);
	pthread_barrier_wait(&run.everybody);
	alarm(0);
	print();
}

/* pids are separated by commas; "" is none. */
static void look_beside(char *pids)
{
	for (char *pid = strtok(pids, ","); pid; pid = strtok(NULL, ",")) {
		check(run.besides == MAX_BESIDE, "look at so many processes beside");
		errno = clock_getcpuclockid(atoi(pid), &run.beside[run.besides++]);
		check(errno != 0, "look at a process beside");
	}
}

static void parse(char **argv)
{
	run.crr = !strcmp(argv[1], "crr");
	run.softirq = -1;
	run.server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[5]))};
	run.connections = atoi(argv[6]);
	run.request = strtoul(argv[7], NULL, 10);
	run.response = strtoul(argv[8], NULL, 10);
	run.port = strtoul(argv[9], NULL, 10);
	if (run.connections < 1 || run.connections > MAX_CONNECTIONS || run.request < 1 ||
	    run.request > MAX_MESSAGE || run.response < 1 || run.response > MAX_MESSAGE ||
	    inet_pton(AF_INET, argv[4], &run.server.sin_addr) != 1) {
		fprintf(stderr, "connections to 256, messages to 64 MiB, an IPv4 address\n");
		exit(2);
	}
	if (atoi(argv[3]) > 0) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/schedstat", atoi(argv[3]));
		run.softirq = open(path, O_RDONLY | O_CLOEXEC);
		check(run.softirq < 0, path);
	}
	look_beside(argv[10]);
	pin(atoi(argv[2]));
}

/*
 * Network namespaces are descriptors 3 (clients') and 4 (servers'). Each line of standard input, "WARM NS", is a
 * measurement, and is answered by a line of JSON. Between two of them everybody sleeps, and connections of RR stay.
 */
int main(int argc, char **argv)
{
	if (argc != 11) {
		fprintf(stderr,
			"load rr|crr CPU SOFTIRQ_PID ADDRESS PORT CONNECTIONS REQUEST RESPONSE FIRST PIDS\n");
		return 2;
	}
	parse(argv);
	signal(SIGALRM, too_late);
	pthread_barrier_init(&run.everybody, NULL, run.connections + 1);
	pthread_barrier_init(&run.clients, NULL, run.connections);

	/* A thread is born into the namespace of its parent. */
	enter(4);
	listen_there();
	for (int i = 0; i < run.connections; i++)
		start(serve, NULL);
	enter(3);
	for (int i = 0; i < run.connections; i++)
		start(client, &run.each[i]);
	while (scanf("%lu %lu", &run.warm, &run.duration) == 2)
		measure();
	exit(0);
}
