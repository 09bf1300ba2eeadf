/* SPDX-License-Identifier: Apache-2.0 */

/* System V shared memory of huge pages (SHM_HUGETLB). The harness sees to it that there
 * are enough, and that the program may make it. */

#include "programs.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#define HUGE_2MB (21 << 26) /* SHM_HUGE_2MB */
#define HUGE (2ul << 20)

static const int RW = PROT_READ | PROT_WRITE;

static int segment(key_t key, size_t size, int flags)
{
	return SYS(shmget(key, size, flags | IPC_CREAT | IPC_EXCL | SHM_HUGETLB | HUGE_2MB));
}

static char *attach(int id, int flags)
{
	return SYS((char *)shmat(id, NULL, flags));
}

/* shown is the number in a line of the mapping that begins at an address, in kB. */
static long shown(const char *at, const char *key)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	CHECK(f != NULL);
	char line[512];
	unsigned long start, end, here = 0;
	long found = -1;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start;
		if (here == (unsigned long)at && strncmp(line, key, strlen(key)) == 0)
			found = strtol(line + strlen(key), NULL, 10);
	}
	fclose(f);
	return found;
}

static void is_huge(const char *at) { CHECK(shown(at, "KernelPageSize:") == 2048); }

static struct shmid_ds state_of(int id)
{
	struct shmid_ds ds;
	CHECK(shmctl(id, IPC_STAT, &ds) == 0);
	return ds;
}

/* protected reports that a page cannot be written. */
static int is_protected(char *at)
{
	int ends[2];
	CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
	int out = read(ends[0], at, 1) == -1 && errno == EFAULT;
	close(ends[0]);
	close(ends[1]);
	return out;
}

PROGRAM(huge_segments, HUGE_PAGES | HUGE_SEGMENTS, "System V shared memory of huge pages, attached by two processes, read-only, or removed")
{
	int gone = segment(0x7a01, HUGE, 0600); /* so that the next one's id is not the first of its slot */
	CHECK(shmctl(gone, IPC_RMID, NULL) == 0);
	int id = segment(0x7a01, 3 * HUGE - 5000, 0640), lost = segment(IPC_PRIVATE, HUGE, 0600);
	char *p = attach(id, 0), *r = attach(id, SHM_RDONLY), *q = attach(lost, 0);
	CHECK(shmctl(lost, IPC_RMID, NULL) == 0);
	fill(p, HUGE, 1);
	fill(p + 3 * HUGE - 4096, 4096, 2); /* behind its size, in its last page */
	q[77] = 'q';
	CHECK(mprotect(p + HUGE, HUGE, PROT_READ) == 0);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(filled(p, HUGE, 3) && q[78] == 'r');
		is_huge(p);
		CHECK(shmdt(r) == 0);
		q[79] = 's';
		_exit(7);
	}
	ready();
	CHECK(shmget(0x7a01, 0, 0) == id && id != gone);
	struct shmid_ds ds = state_of(id);
	CHECK(ds.shm_segsz == 3 * HUGE - 5000 && (ds.shm_perm.mode & 07777) == 0640);
	CHECK(ds.shm_perm.uid == geteuid() && ds.shm_perm.cuid == geteuid() && ds.shm_perm.gid == getegid() && ds.shm_perm.cgid == getegid());
	/* two attachments, of which one is in parts, since its protections differ */
	CHECK(ds.shm_nattch == 8);
	ds = state_of(lost);
	CHECK(ds.shm_nattch == 2 && ds.shm_perm.mode & SHM_DEST);
	is_huge(p);
	is_huge(r);
	is_huge(q);
	CHECK(filled(p, HUGE, 1) && filled(r, HUGE, 1) && filled(r + 3 * HUGE - 4096, 4096, 2) && q[77] == 'q' && q[78] == 0);
	CHECK(is_protected(p + HUGE) && is_protected(r));
	CHECK(mprotect(r, HUGE, RW) == -1 && errno == EACCES);
	CHECK(mprotect(p + HUGE, HUGE, RW) == 0);
	/* It was not touched before: it is one of the reserved pages. */
	fill(p + HUGE, HUGE, 4);
	CHECK(filled(r + HUGE, HUGE, 4));
	fill(p, HUGE, 3);
	q[78] = 'r';
	board_post(b, 0);
	CHECK(child_exits(child) == 7);
	CHECK(q[79] == 's' && state_of(lost).shm_nattch == 1);
	CHECK(shmdt(q) == 0 && shmctl(lost, IPC_STAT, &ds) == -1 && (errno == EINVAL || errno == EIDRM));
	CHECK(shmctl(id, IPC_RMID, NULL) == 0);
}

PROGRAM(huge_segments_alone, HUGE_PAGES | HUGE_SEGMENTS, "System V shared memory of huge pages that nobody has attached, with and without a page")
{
	int full = segment(0x7a02, 3 * HUGE, 0600), empty = segment(0x7a03, HUGE, 0604);
	int unreserved = segment(0x7a04, HUGE, 0600 | SHM_NORESERVE);
	CHECK(shmctl(full, SHM_LOCK, NULL) == 0); /* which does nothing to huge pages */
	char *p = attach(full, 0);
	fill(p + HUGE, HUGE, 5);
	CHECK(shmdt(p) == 0);
	p = attach(unreserved, 0);
	fill(p, 4096, 6);
	CHECK(shmdt(p) == 0);
	/* What is small stays small. */
	int small = SYS(shmget(0x7a05, 4 * HUGE, IPC_CREAT | 0600));
	ready();
	CHECK(shmget(0x7a02, 0, 0) == full && shmget(0x7a03, 0, 0) == empty && shmget(0x7a04, 0, 0) == unreserved && shmget(0x7a05, 0, 0) == small);
	CHECK(state_of(full).shm_nattch == 0 && state_of(full).shm_segsz == 3 * HUGE && (state_of(empty).shm_perm.mode & 07777) == 0604);
	p = attach(full, 0);
	is_huge(p);
	CHECK(filled(p + HUGE, HUGE, 5));
	CHECK(p[0] == 0 && p[HUGE - 1] == 0 && p[2 * HUGE] == 0);
	fill(p, HUGE, 7);
	char *e = attach(empty, 0), *u = attach(unreserved, 0), *s = attach(small, 0);
	is_huge(e);
	is_huge(u);
	CHECK(shown(s, "KernelPageSize:") == 4);
	CHECK(e[4097] == 0 && filled(u, 4096, 6) && u[4096] == 0);
	CHECK(shmctl(full, IPC_RMID, NULL) == 0 && shmctl(empty, IPC_RMID, NULL) == 0 && shmctl(unreserved, IPC_RMID, NULL) == 0);
}

PROGRAM(huge_segments_parts, HUGE_PAGES | HUGE_SEGMENTS, "parts of System V shared memory of huge pages, detached and moved")
{
	int id = segment(IPC_PRIVATE, 4 * HUGE, 0600);
	char *p = attach(id, 0);
	for (int i = 0; i < 4; i++)
		p[i * HUGE + 9] = 'a' + i;
	CHECK(munmap(p + HUGE, HUGE) == 0);
	char *moved = SYS(mremap(p + 2 * HUGE, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x100000000000));
	/* In the place of what was moved is something else. */
	char *other = SYS(mmap(p + 2 * HUGE, 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	other[0] = 'o';
	ready();
	unsigned char in;
	CHECK(p[9] == 'a' && p[3 * HUGE + 9] == 'd' && moved[9] == 'c' && other[0] == 'o');
	CHECK(mincore(p + HUGE, 4096, &in) == -1 && errno == ENOMEM);
	is_huge(p);
	is_huge(p + 3 * HUGE);
	is_huge(moved);
	CHECK(state_of(id).shm_nattch == 3);
	char *again = attach(id, 0);
	CHECK(again[HUGE + 9] == 'b');
	moved[10] = 'm';
	CHECK(again[2 * HUGE + 10] == 'm');
	CHECK(shmctl(id, IPC_RMID, NULL) == 0);
}
