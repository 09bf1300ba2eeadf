/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Processes that have in common what a fork copies. Those in one memory have the same
 * thread-local storage, too: what they do at the same time must not touch errno.
 */
#include "programs.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>

enum { KCMP_VM = 1, KCMP_FILES = 2, KCMP_FS = 3, KCMP_SIGHAND = 4 };

static int same(pid_t a, pid_t b, int what) { return SYS(syscall(SYS_kcmp, a, b, what, 0, 0)) == 0; }

/* have says whether two processes have exactly what the flags of clone say. */
static void have(pid_t a, pid_t b, int flags)
{
	CHECK(same(a, b, KCMP_VM) == !!(flags & CLONE_VM));
	CHECK(same(a, b, KCMP_SIGHAND) == !!(flags & CLONE_SIGHAND));
	CHECK(same(a, b, KCMP_FS) == !!(flags & CLONE_FS));
	CHECK(same(a, b, KCMP_FILES) == !!(flags & CLONE_FILES));
}

/* stack is the upper end of a new one. */
static void *stack(void)
{
	enum { SIZE = 128 << 10 };
	return (char *)SYS(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) + SIZE;
}

static pid_t make(int (*run)(void *), int flags, void *argument) { return SYS(clone(run, stack(), flags | SIGCHLD, argument)); }

/* What a child does: it waits, looks at what it has, leaves something and ends. */
struct task {
	struct board *board;
	int number, flags;
	pid_t parent, pid;
	/* in the memory of the process that made it */
	volatile int *word;
};

static void on_signal(int signal) { (void)signal; }
static void on_other(int signal) { (void)signal; }

static int child(void *argument)
{
	struct task *t = argument;
	pid_t me = getpid(), parent = getppid();
	board_post(t->board, 0);
	board_await(t->board, 1, 1);
	if (getpid() != me || getppid() != parent || (t->parent && parent != t->parent))
		fail("child %d is %d of %d, and was %d of %d", t->number, getpid(), getppid(), me, parent);
	if (*t->word != (t->flags & CLONE_VM ? 2 : 1))
		fail("child %d reads %d", t->number, *t->word);
	struct sigaction now;
	if (sigaction(SIGUSR2, NULL, &now) != 0 || now.sa_handler != (t->flags & CLONE_SIGHAND ? on_other : on_signal))
		fail("child %d has another handler", t->number);
	char cwd[64];
	if (syscall(SYS_getcwd, cwd, sizeof cwd) < 0 || strcmp(cwd, t->flags & CLONE_FS ? "/tmp" : "/") != 0)
		fail("child %d is in %s", t->number, cwd);
	if ((fcntl(200, F_GETFD) >= 0) != !!(t->flags & CLONE_FILES))
		fail("child %d has, or lacks, what its maker has opened", t->number);
	_exit(40 + t->number);
}

/* changes is what the process that has made children does when it has been restored. */
static void changes(volatile int *word)
{
	struct sigaction other = {.sa_handler = on_other};
	*word = 2;
	CHECK(sigaction(SIGUSR2, &other, NULL) == 0);
	CHECK(chdir("/tmp") == 0);
	CHECK(dup2(1, 200) == 200);
}

static void begins(volatile int *word)
{
	struct sigaction one = {.sa_handler = on_signal};
	*word = 1;
	CHECK(sigaction(SIGUSR2, &one, NULL) == 0);
	CHECK(chdir("/") == 0);
	close(200);
}

static const int mixtures[] = {
	CLONE_VM, CLONE_VM | CLONE_FS, CLONE_VM | CLONE_FILES, CLONE_VM | CLONE_FS | CLONE_FILES,
	CLONE_VM | CLONE_SIGHAND, CLONE_VM | CLONE_SIGHAND | CLONE_FS, CLONE_VM | CLONE_SIGHAND | CLONE_FILES,
	CLONE_VM | CLONE_SIGHAND | CLONE_FS | CLONE_FILES, CLONE_FS, CLONE_FILES, CLONE_FS | CLONE_FILES, 0,
};
enum { MIXTURES = sizeof mixtures / sizeof mixtures[0] };

/* mixed has children in all mixtures; extra is for all of them. Whatever they are, they
 * are the children of parent. */
static void mixed(struct board *b, int extra, pid_t parent, pid_t pids[MIXTURES])
{
	static struct task tasks[MIXTURES];
	static volatile int word;
	begins(&word);
	for (int i = 0; i < MIXTURES; i++) {
		tasks[i] = (struct task){b, i, mixtures[i], parent, 0, &word};
		pids[i] = tasks[i].pid = make(child, mixtures[i] | extra, &tasks[i]);
		have(getpid(), pids[i], mixtures[i]);
	}
	board_await(b, 0, MIXTURES);
	if (getpid() == 1)
		ready();
	else {
		board_post(b, 2);
		board_await(b, 3, 1);
	}
	for (int i = 0; i < MIXTURES; i++)
		have(getpid(), pids[i], mixtures[i]);
	changes(&word);
	board_post(b, 1);
}

PROGRAM(share_mixtures, ANYONE, "children with their parent's memory, handlers, directories, descriptors in every mixture")
{
	pid_t pids[MIXTURES];
	mixed(board_new(), 0, getpid(), pids);
	for (int i = 0; i < MIXTURES; i++)
		CHECK(child_exits(pids[i]) == 40 + i);
}

PROGRAM(share_siblings, ANYONE, "siblings in every mixture, whose parent has nothing in common with them")
{
	struct board *b = board_new();
	pid_t *pids = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t first = SYS(fork());
	if (first == 0) {
		mixed(b, CLONE_PARENT, getppid(), pids);
		_exit(7);
	}
	board_await(b, 2, 1);
	ready();
	board_post(b, 3);
	CHECK(child_exits(first) == 7);
	for (int i = 0; i < MIXTURES; i++)
		CHECK(child_exits(pids[i]) == 40 + i);
}

PROGRAM(share_alone, ANYONE, "orphans with one memory, whose maker has ended")
{
	struct board *b = board_new();
	volatile pid_t *pids = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t maker = SYS(fork());
	enum { ALL = CLONE_VM | CLONE_SIGHAND | CLONE_FS | CLONE_FILES };
	if (maker == 0) {
		static struct task tasks[3];
		static volatile int word;
		begins(&word);
		for (int i = 0; i < 3; i++) {
			tasks[i] = (struct task){b, i, i == 2 ? CLONE_VM : ALL, 1, 0, &word};
			pids[i] = make(child, tasks[i].flags, &tasks[i]);
		}
		/* Nobody changes anything: the children find what was there at the beginning. */
		for (int i = 0; i < 3; i++)
			tasks[i].flags = 0;
		_exit(0);
	}
	CHECK(child_exits(maker) == 0);
	board_await(b, 0, 3);
	/* Those that began before their maker's end have seen it as their parent. */
	ready();
	have(pids[0], pids[1], ALL);
	have(pids[0], pids[2], CLONE_VM);
	have(getpid(), pids[0], 0);
	for (int i = 0; i < 3; i++)
		CHECK(kill(pids[i], 0) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(kill(pids[i], SIGKILL) == 0);
	for (int i = 0; i < 3; i++) {
		int status;
		CHECK(waitpid(pids[i], &status, 0) == pids[i] && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
}

static int waits_for_word(void *argument)
{
	struct task *t = argument;
	while (t->parent && getppid() != t->parent)
		syscall(SYS_sched_yield);
	board_post(t->board, 0);
	board_await(t->board, 1, 1);
	if (t->parent && getppid() != t->parent)
		_exit(1);
	/* What it writes the others read: one memory. */
	t->word[t->number] = 100 + t->number;
	_exit(9);
}

static int makes_and_ends(void *argument)
{
	struct task *t = argument;
	t->pid = clone(waits_for_word, stack(), t->flags | SIGCHLD, t);
	_exit(t->pid < 0);
}

PROGRAM(share_adopted, ANYONE, "an orphan in the memory, handlers, directories and descriptors of a process that is far away")
{
	struct board *b = board_new();
	volatile pid_t *pids = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	enum { ALL = CLONE_VM | CLONE_SIGHAND | CLONE_FS | CLONE_FILES };
	pid_t top = SYS(fork());
	if (top == 0) {
		pid_t below = SYS(fork());
		if (below == 0) {
			static volatile int words[2];
			static struct task t;
			t = (struct task){b, 1, ALL, 1, 0, words};
			CHECK(child_exits(make(makes_and_ends, ALL, &t)) == 0);
			pids[0] = getpid(), pids[1] = t.pid;
			board_post(b, 0);
			board_await(b, 2, 1);
			_exit(words[1] == 101 ? 3 : 4);
		}
		_exit(child_exits(below));
	}
	board_await(b, 0, 2);
	ready();
	have(pids[0], pids[1], ALL);
	board_post(b, 1);
	CHECK(child_exits(pids[1]) == 9);
	board_post(b, 2);
	CHECK(child_exits(top) == 3);
}

/* A child in the same memory, with threads of its own and children that are copies. */
static struct family {
	struct board *board;
	volatile int thread_word, fork_word;
	unsigned char *pages;
	int cleared;
} family;
enum { PAGES = 64 * 4096 };

static int thread(void *unused)
{
	(void)unused;
	board_post(family.board, 0);
	board_await(family.board, 1, 1);
	family.thread_word = 5;
	board_post(family.board, 2);
	for (;;)
		syscall(SYS_pause);
	return 0;
}

static int has_family(void *unused)
{
	(void)unused;
	enum { THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM };
	if (clone(thread, stack(), THREAD, NULL) < 0)
		_exit(1);
	pid_t copy = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (copy == 0) {
		family.pages[0] ^= 1; /* its own now */
		board_post(family.board, 0);
		board_await(family.board, 3, 1);
		family.pages[0] ^= 1;
		if (!filled(family.pages, PAGES, 77) || family.thread_word != 0)
			_exit(2);
		_exit(6);
	}
	board_await(family.board, 2, 1);
	board_post(family.board, 3);
	int status = 0;
	if (syscall(SYS_wait4, copy, &status, 0, 0) != copy || status != 6 << 8)
		_exit(3);
	family.fork_word = 8;
	_exit(5);
}

PROGRAM(share_family, ANYONE, "a child in its parent's memory, with a thread and a copy of its own")
{
	family.board = board_new();
	family.pages = SYS(mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	fill(family.pages, PAGES, 77);
	family.cleared = 1;
	pid_t pid = SYS(clone(has_family, stack(), CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL, NULL, &family.cleared));
	board_await(family.board, 0, 2);
	ready();
	CHECK(filled(family.pages, PAGES, 77) && family.thread_word == 0 && family.cleared == 1);
	board_post(family.board, 1);
	CHECK(child_exits(pid) == 5);
	CHECK(family.thread_word == 5 && family.fork_word == 8 && family.cleared == 0);
}

/* Each of the two maps, grows the heap and unmaps what the other one sees. */
static volatile struct {
	struct board *board;
	unsigned char *hers, *heap;
} rooms;

static int maps(void *unused)
{
	(void)unused;
	rooms.hers = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill(rooms.hers, PAGES, 3);
	board_post(rooms.board, 0);
	board_await(rooms.board, 1, 1);
	rooms.heap = sbrk(PAGES);
	fill(rooms.heap, PAGES, 4);
	munmap(rooms.hers, PAGES);
	_exit(0);
}

static void have_rooms(void)
{
	rooms.board = board_new();
	pid_t pid = make(maps, CLONE_VM | CLONE_SIGHAND, NULL);
	board_await(rooms.board, 0, 1);
	unsigned char *heap = sbrk(0);
	ready();
	CHECK(filled(rooms.hers, PAGES, 3));
	CHECK(sbrk(0) == heap);
	board_post(rooms.board, 1);
	CHECK(child_exits(pid) == 0);
	CHECK(rooms.heap == heap && filled(heap, PAGES, 4) && (unsigned char *)sbrk(0) == heap + PAGES);
	unsigned char in;
	CHECK(mincore(rooms.hers, 4096, &in) == -1 && errno == ENOMEM);
}

PROGRAM(share_rooms, ANYONE, "mappings and the heap of two processes in one memory") { have_rooms(); }
PROGRAM(share_paused, CHANGES_FILES, "the same in a container that is paused when it is saved first") { have_rooms(); }

static volatile int handled[2];
static void counts(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	__atomic_add_fetch(&handled[info->si_value.sival_int], 1, __ATOMIC_SEQ_CST);
}

static int waits_for_signal(void *argument)
{
	struct task *t = argument;
	sigset_t block, old;
	sigemptyset(&block);
	sigaddset(&block, SIGRTMIN + 3);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &block, &old, 8);
	board_post(t->board, 0);
	board_await(t->board, 1, 1);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, 8); /* what is pending comes now */
	_exit(handled[1] == 2 ? 0 : 20 + handled[1]);
}

PROGRAM(share_signals, ANYONE, "pending signals, each for one of two processes with the same handlers")
{
	static struct task t;
	struct sigaction act = {.sa_sigaction = counts, .sa_flags = SA_SIGINFO | SA_RESTART};
	t.board = board_new();
	CHECK(sigaction(SIGRTMIN + 3, &act, NULL) == 0);
	pid_t pid = make(waits_for_signal, CLONE_VM | CLONE_SIGHAND, &t);
	board_await(t.board, 0, 1);
	for (int i = 0; i < 2; i++)
		CHECK(sigqueue(pid, SIGRTMIN + 3, (union sigval){.sival_int = 1}) == 0);
	CHECK(handled[1] == 0);
	ready();
	CHECK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 0}) == 0);
	CHECK(handled[0] == 1 && handled[1] == 0);
	board_post(t.board, 1);
	CHECK(child_exits(pid) == 0);
}

PROGRAM(share_filtered, ANYONE, "two processes in one memory under a seccomp filter")
{
	static struct task t;
	static volatile int words[1];
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog filter = {1, &allow};
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
	t = (struct task){board_new(), 0, CLONE_VM, 1, 0, words};
	pid_t pid = make(waits_for_word, CLONE_VM | CLONE_FILES, &t);
	board_await(t.board, 0, 1);
	ready();
	have(getpid(), pid, CLONE_VM | CLONE_FILES);
	board_post(t.board, 1);
	CHECK(child_exits(pid) == 9 && words[0] == 100);
}

/* A grandchild has something in common with its grandparent that its parent has given up. */
static void skips(int flags)
{
	static struct task t;
	static volatile int word;
	struct board *b = board_new();
	volatile pid_t *pid = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	begins(&word);
	pid_t between = SYS(syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0));
	if (between == 0) {
		t = (struct task){b, 1, flags, getpid(), 0, &word};
		*pid = make(child, flags, &t);
		CHECK(unshare(flags) == 0);
		board_await(b, 1, 1);
		char cwd[64];
		CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") == 0 && fcntl(200, F_GETFD) == -1);
		_exit(child_exits(*pid));
	}
	board_await(b, 0, 1);
	ready();
	have(getpid(), *pid, flags);
	have(between, *pid, 0);
	have(getpid(), between, 0);
	changes(&word);
	board_post(b, 1);
	CHECK(child_exits(between) == 41);
}

PROGRAM(share_skips_directories, ANYONE, "a grandchild with its grandparent's directories") { skips(CLONE_FS); }
PROGRAM(share_skips_descriptors, ANYONE, "a grandchild with its grandparent's descriptors") { skips(CLONE_FILES); }
PROGRAM(share_skips_both, ANYONE, "a grandchild with its grandparent's directories and descriptors") { skips(CLONE_FS | CLONE_FILES); }

REFUSED(share_of_two, ANYONE, "and all of that with none of them", "a child with one's directories and another's descriptors")
{
	static struct task t;
	static volatile int word;
	struct board *b = board_new();
	volatile pid_t *pid = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	begins(&word);
	enum { BOTH = CLONE_FS | CLONE_FILES };
	pid_t between = SYS(syscall(SYS_clone, BOTH | SIGCHLD, 0, 0, 0, 0));
	if (between == 0) {
		t = (struct task){b, 1, CLONE_FS, getpid(), 0, &word};
		*pid = make(child, BOTH, &t);
		CHECK(unshare(CLONE_FS) == 0);
		board_await(b, 1, 1);
		_exit(child_exits(*pid));
	}
	board_await(b, 0, 1);
	CHECK(unshare(CLONE_FILES) == 0);
	ready();
	have(getpid(), *pid, CLONE_FS);
	have(between, *pid, CLONE_FILES);
	changes(&word);
	board_post(b, 1);
	CHECK(child_exits(between) == 41);
}
