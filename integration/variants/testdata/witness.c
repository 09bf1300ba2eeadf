// SPDX-License-Identifier: Apache-2.0
//
// witness [quiet] [io] [file PATH] [nothread] [limit N:SOFT:HARD]...: a process that knows what it is and looks, many times a
// second, whether it still is. Its account is the page at ACCOUNT, which a test
// reads from outside: the witness needs no file, no socket and no exec for it.
//
//	quiet       after its start it makes no system call but nanosleep(2), as a
//	            seccomp profile may forbid all others
//	nothread    one thread only
//	limit N:SOFT:HARD   when its threads run, it lowers limit N of setrlimit(2)
//	deep        it changes what few programs change: affinity, priorities,
//	            personality, prctl(2)'s settings
//	shm, msg, sem, mq   it makes an IPC object
//	io          it echoes its standard input and writes a line every 50 ms
//	file PATH   it appends to a file and compares what it reads back
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ACCOUNT 0x200000000000UL
#define MAGIC 0x7373656e746977UL // "witness"
#define THREADS 3
#define PAGES 256
#define WORDS (4096 / 8)

struct account {
	uint64_t magic, beats, errors, threads[THREADS];
	char wrong[1024]; // what was wrong, each once
};

static struct account *const account = (struct account *)ACCOUNT;

static void wrong(const char *what)
{
	size_t have = strlen(account->wrong);

	account->errors++;
	if (!strstr(account->wrong, what) && have + strlen(what) + 32 < sizeof account->wrong)
		sprintf(account->wrong + have, "%s%s (errno %d)", have ? "; " : "", what, errno);
}

static void die(const char *what)
{
	perror(what);
	_exit(99);
}

static void nap(long us)
{
	struct timespec t = {0, us * 1000};

	nanosleep(&t, NULL);
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

// identity is what the kernel tells the process about itself.
struct action {
	void *handler;
	unsigned long flags, mask;
};

struct identity {
	uid_t uid[3];
	gid_t gid[3];
	int groups;
	gid_t group[64];
	mode_t mask;
	dev_t cwd_dev;
	char cwd[256];
	uint32_t caps[6];
	int no_new_privs, dumpable, securebits, keepcaps;
	uint64_t bounding, ambient;
	struct rlimit limit[RLIM_NLIMITS];
	struct action usr1, chld, pipe;
	sigset_t blocked;
	pid_t pid, pgrp, sid;
	stack_t altstack;
	char name[16];
	// Of the thread that asks, and of the process as a whole.
	unsigned long affinity[16];
	int ioprio, policy, nice, thp, slack, persona, reaper, death, ssb, ib, mce, tsc, ksm, merge, mdwe;
	int memory_policy;
	unsigned long nodes[16];
};

// action leaves out what glibc does not fill in of its larger sigset_t.
static void action(int sig, struct action *to)
{
	struct sigaction a;

	sigaction(sig, NULL, &a);
	to->handler = (void *)a.sa_handler;
	to->flags = a.sa_flags;
	memcpy(&to->mask, &a.sa_mask, sizeof to->mask);
}

static void look(struct identity *id)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};

	memset(id, 0, sizeof *id);
	getresuid(&id->uid[0], &id->uid[1], &id->uid[2]);
	getresgid(&id->gid[0], &id->gid[1], &id->gid[2]);
	id->groups = getgroups(64, id->group);
	id->mask = umask(0);
	umask(id->mask);
	if (!getcwd(id->cwd, sizeof id->cwd))
		wrong("getcwd");
	if (syscall(SYS_capget, &header, id->caps) < 0)
		wrong("capget");
	id->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	id->dumpable = prctl(PR_GET_DUMPABLE);
	id->securebits = prctl(PR_GET_SECUREBITS);
	id->keepcaps = prctl(PR_GET_KEEPCAPS);
	for (int n = 0; n < 64; n++) {
		id->bounding |= (uint64_t)(prctl(PR_CAPBSET_READ, n) == 1) << n;
		id->ambient |= (uint64_t)(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, n, 0, 0) == 1) << n;
	}
	for (int n = 0; n < RLIM_NLIMITS; n++)
		getrlimit(n, &id->limit[n]);
	action(SIGUSR1, &id->usr1);
	action(SIGCHLD, &id->chld);
	action(SIGPIPE, &id->pipe);
	sigprocmask(SIG_BLOCK, NULL, &id->blocked);
	id->pid = getpid();
	id->pgrp = getpgrp();
	id->sid = getsid(0);
	sigaltstack(NULL, &id->altstack);
	prctl(PR_GET_NAME, id->name);
}

// look_deep asks for what deep() changed.
static void look_deep(struct identity *id)
{
	syscall(SYS_sched_getaffinity, 0, sizeof id->affinity, id->affinity);
	id->ioprio = syscall(SYS_ioprio_get, 1, 0);
	id->policy = sched_getscheduler(0);
	id->nice = getpriority(PRIO_PROCESS, 0);
	id->thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	id->slack = prctl(PR_GET_TIMERSLACK);
	id->persona = personality(0xffffffff);
	prctl(PR_GET_CHILD_SUBREAPER, &id->reaper);
	prctl(PR_GET_PDEATHSIG, &id->death);
	id->ssb = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	id->ib = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, 0, 0, 0);
	id->mce = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	prctl(PR_GET_TSC, &id->tsc);
	id->merge = prctl(68 /* PR_GET_MEMORY_MERGE */, 0, 0, 0, 0);
	id->mdwe = prctl(66 /* PR_GET_MDWE */, 0, 0, 0, 0);
	syscall(SYS_get_mempolicy, &id->memory_policy, id->nodes, 1024, NULL, 0);
	// Registered once, it answers; a process that lost it gets EPERM.
	if (syscall(SYS_membarrier, 8 /* PRIVATE_EXPEDITED */, 0, 0))
		wrong("membarrier's registration is lost");
}

// deep changes one setting by each line. What the kernel does not have it does
// not change, and look_deep sees the same before and after.
static void deep(void)
{
	unsigned long mask = 1;
	struct sched_param none = {0};
	int fd;

	syscall(SYS_sched_setaffinity, 0, sizeof mask, &mask);
	syscall(SYS_ioprio_set, 1, 0, 3 << 13);
	sched_setscheduler(0, SCHED_BATCH, &none);
	setpriority(PRIO_PROCESS, 0, 3);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	prctl(PR_SET_TIMERSLACK, 77777);
	personality(0x0040000 /* ADDR_NO_RANDOMIZE */);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	prctl(PR_SET_KEEPCAPS, 1);
	prctl(PR_SET_NAME, "renamed");
	prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
	prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_DISABLE, 0, 0);
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0);
	if (syscall(SYS_set_mempolicy, 1 /* MPOL_PREFERRED */, &mask, 64))
		perror("set_mempolicy");
	syscall(SYS_membarrier, 16 /* REGISTER_PRIVATE_EXPEDITED */, 0, 0);
	if ((fd = open("/proc/self/oom_score_adj", O_WRONLY)) < 0 || dprintf(fd, "300") < 0)
		die("oom_score_adj");
	close(fd);
	if ((fd = open("/proc/self/coredump_filter", O_WRONLY)) < 0 || dprintf(fd, "0x7f") < 0)
		die("coredump_filter");
	close(fd);
	prctl(PR_SET_DUMPABLE, 0); // the files above would be root's from here on
}

static void compare(const struct identity *was, const struct identity *is)
{
#define SAME(field, what) \
	if (memcmp(&was->field, &is->field, sizeof was->field)) \
		wrong(what " changed")
	SAME(uid, "uid");
	SAME(gid, "gid");
	SAME(groups, "the number of groups");
	SAME(group, "a group");
	SAME(mask, "umask");
	SAME(cwd, "the working directory");
	SAME(caps, "a capability set");
	SAME(no_new_privs, "no_new_privs");
	SAME(dumpable, "dumpable");
	SAME(securebits, "secure bits");
	SAME(keepcaps, "keepcaps");
	SAME(bounding, "the bounding set");
	SAME(ambient, "the ambient set");
	SAME(limit, "a resource limit");
	SAME(usr1, "the handler of SIGUSR1");
	SAME(chld, "the handler of SIGCHLD");
	SAME(pipe, "the handler of SIGPIPE");
	SAME(blocked, "the blocked signals");
	SAME(pid, "pid");
	SAME(pgrp, "process group");
	SAME(sid, "session");
	SAME(altstack, "alternate stack");
	SAME(name, "name");
	SAME(affinity, "CPU affinity");
	SAME(ioprio, "I/O priority");
	SAME(policy, "scheduling policy");
	SAME(nice, "nice value");
	SAME(thp, "THP_DISABLE");
	SAME(slack, "timer slack");
	SAME(persona, "personality");
	SAME(reaper, "CHILD_SUBREAPER");
	SAME(death, "PDEATHSIG");
	SAME(ssb, "speculative store bypass");
	SAME(ib, "indirect branch speculation");
	SAME(mce, "MCE_KILL");
	SAME(tsc, "TSC");
	SAME(merge, "MEMORY_MERGE");
	SAME(mdwe, "MDWE");
	SAME(memory_policy, "the memory policy");
	SAME(nodes, "the memory policy's nodes");
}

static void *worker(void *arg)
{
	uint64_t own[WORDS], n = (uintptr_t)arg;

	for (uint64_t round = 0;; round++) {
		for (int i = 0; i < WORDS; i++)
			own[i] = mix(round + i + (n << 32));
		nap(500);
		for (int i = 0; i < WORDS; i++)
			if (own[i] != mix(round + i + (n << 32)))
				wrong("a thread's stack changed");
		account->threads[n]++;
	}
	return NULL;
}

static void handler(int sig) { (void)sig; }

// channels are what is unread in a pipe and in a socket pair, and an epoll that
// sees both and an eventfd.
static int pipes[2], pair[2], counter, epoll;
static const char unread[] = "unread since the start";

static void open_channels(void)
{
	struct epoll_event e = {.events = EPOLLIN};

	if (pipe2(pipes, O_CLOEXEC) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("channels");
	if ((counter = eventfd(7, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 || (epoll = epoll_create1(EPOLL_CLOEXEC)) < 0)
		die("channels");
	if (write(pipes[1], unread, sizeof unread) < 0 || write(pair[1], unread, sizeof unread) < 0)
		die("channels");
	for (int i = 0; i < 3; i++) {
		e.data.fd = (int[]){pipes[0], pair[0], counter}[i];
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, e.data.fd, &e))
			die("epoll_ctl");
	}
}

static void check_channels(void)
{
	struct epoll_event e[8];
	char buf[64] = "";
	uint64_t n;

	if (epoll_wait(epoll, e, 8, 0) != 3)
		wrong("epoll does not see its three files");
	if (recv(pair[0], buf, sizeof buf, MSG_DONTWAIT) != sizeof unread || strcmp(buf, unread))
		wrong("a socket pair lost what was unread");
	if (send(pair[1], unread, sizeof unread, 0) != sizeof unread)
		wrong("a socket pair does not take data");
	memset(buf, 0, sizeof buf);
	if (read(pipes[0], buf, sizeof buf) != sizeof unread || strcmp(buf, unread))
		wrong("a pipe lost what was unread");
	if (write(pipes[1], unread, sizeof unread) != sizeof unread)
		wrong("a pipe does not take data");
	if (read(counter, &n, 8) != 8 || n != 7 || write(counter, &n, 8) != 8)
		wrong("an eventfd lost its count");
}

// ipc makes an object of the IPC namespace.
static void ipc(const char *kind)
{
	struct { long type; char text[8]; } m = {1, "queued"};
	int id = 0;

	if (!strcmp(kind, "shm"))
		id = shmget(0x5111, 4096, IPC_CREAT | 0600);
	if (!strcmp(kind, "sem"))
		id = semget(0x5333, 3, IPC_CREAT | 0600);
	if (!strcmp(kind, "msg") && (id = msgget(0x5222, IPC_CREAT | 0600)) >= 0)
		id = msgsnd(id, &m, sizeof m.text, 0);
	if (!strcmp(kind, "mq") && (id = mq_open("/witness", O_CREAT | O_RDWR, 0600, NULL)) >= 0)
		close(id);
	if (id < 0)
		die(kind);
}

static int file = -1;
static off_t written;

static void check_file(void)
{
	char line[32], back[32] = "";
	int n = snprintf(line, sizeof line, "line %lu\n", account->beats);

	if (file < 0 || account->beats % 32)
		return;
	if (write(file, line, n) != n || pread(file, back, n, written) != n || strcmp(line, back))
		wrong("the file does not hold what was written");
	written += n;
	if (lseek(file, 0, SEEK_CUR) != written)
		wrong("the file's offset changed");
}

// talk echoes whole lines and tells that time passes.
static void talk(void)
{
	static char in[4096];
	static int have;
	static uint64_t ticks;
	struct pollfd p = {.fd = 0, .events = POLLIN};
	char *end;

	if (account->beats % 25 == 0)
		dprintf(1, "tick %lu\n", ++ticks);
	if (account->beats % 400 == 0)
		dprintf(2, "error %lu\n", ticks);
	// It reads only now and then: there is unread input most of the time.
	if (account->beats % 500 || poll(&p, 1, 0) <= 0 || !(p.revents & POLLIN))
		return;
	int n = read(0, in + have, sizeof in - have);
	if (n <= 0)
		return;
	have += n;
	while ((end = memchr(in, '\n', have))) {
		*end = 0;
		dprintf(1, "echo %s\n", in);
		have -= end + 1 - in;
		memmove(in, end + 1, have);
	}
}

static void lower(const char *how)
{
	unsigned int which;
	unsigned long soft, hard;

	if (sscanf(how, "%u:%lu:%lu", &which, &soft, &hard) != 3)
		die(how);
	if (setrlimit(which, &(struct rlimit){soft, hard}))
		die("setrlimit");
}

int main(int argc, char **argv)
{
	static uint64_t memory[PAGES][WORDS];
	static struct identity was, is;
	static char stack[65536];
	int quiet = 0, io = 0, is_deep = 0, threads = THREADS;
	const char *path = NULL;
	pthread_t id;

	for (int i = 1; i < argc; i++) {
		quiet |= !strcmp(argv[i], "quiet");
		ipc(argv[i]);
		is_deep |= !strcmp(argv[i], "deep");
		io |= !strcmp(argv[i], "io");
		if (!strcmp(argv[i], "nothread"))
			threads = 0;
		if (!strcmp(argv[i], "file") && i + 1 < argc)
			path = argv[++i];
	}
	if (mmap((void *)ACCOUNT, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)ACCOUNT)
		die("mmap");
	for (int p = 0; p < PAGES; p++)
		for (int i = 0; i < WORDS; i++)
			memory[p][i] = mix(p * WORDS + i);
	if (!quiet) {
		struct sigaction a = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
		stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
		sigset_t set;

		sigaction(SIGUSR1, &a, NULL);
		signal(SIGPIPE, SIG_IGN);
		sigaltstack(&alt, NULL);
		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		umask(027);
		open_channels();
	}
	if (path && (file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640)) < 0)
		die(path);
	for (long n = 0; n < threads; n++)
		if (pthread_create(&id, NULL, worker, (void *)n))
			die("pthread_create");
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "limit"))
			lower(argv[i + 1]);
	if (is_deep)
		deep();
	if (!quiet)
		look(&was);
	if (is_deep)
		look_deep(&was);
	account->magic = MAGIC;
	for (;; account->beats++) {
		int page = account->beats % PAGES;

		for (int i = 0; i < WORDS; i++)
			if (memory[page][i] != mix(page * WORDS + i))
				wrong("memory changed");
		if (!quiet) {
			look(&is);
			if (is_deep)
				look_deep(&is);
			compare(&was, &is);
			check_channels();
		}
		check_file();
		if (io)
			talk();
		nap(2000);
	}
}
