/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <mqueue.h>
#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

PROGRAM(sysv_shm, ANYONE, "attached System V shared memory with its id, key and content")
{
	int id = SYS(shmget(0x4d494701, 10000, IPC_CREAT | 0640));
	char *p = SYS(shmat(id, NULL, 0));
	char *r = SYS(shmat(id, NULL, SHM_RDONLY));
	fill(p, 10000, 1);
	ready();
	CHECK(filled(p, 10000, 1) && filled(r, 10000, 1));
	CHECK(shmget(0x4d494701, 10000, 0) == id);
	struct shmid_ds d;
	CHECK(shmctl(id, IPC_STAT, &d) == 0 && d.shm_nattch == 2 && d.shm_segsz == 10000 && (d.shm_perm.mode & 0777) == 0640);
	p[7] = 'x';
	CHECK(r[7] == 'x' && shmdt(r) == 0);
	CHECK(shmctl(id, IPC_STAT, &d) == 0 && d.shm_nattch == 1);
}

PROGRAM(sysv_shm_unattached, ANYONE, "a segment that nobody has attached")
{
	int id = SYS(shmget(0x4d494702, 4096, IPC_CREAT | 0600));
	char *p = SYS(shmat(id, NULL, 0));
	fill(p, 4096, 2);
	CHECK(shmdt(p) == 0);
	ready();
	p = SYS(shmat(SYS(shmget(0x4d494702, 4096, 0)), NULL, 0));
	CHECK(filled(p, 4096, 2));
}

PROGRAM(sysv_shm_removed, ANYONE, "a segment that goes with its last attachment, shared with a child")
{
	int id = SYS(shmget(IPC_PRIVATE, 8192, 0600));
	char *p = SYS(shmat(id, NULL, 0));
	CHECK(shmctl(id, IPC_RMID, NULL) == 0);
	fill(p, 8192, 3);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(p[0] == 'y');
		p[1] = 'z';
		_exit(1);
	}
	ready();
	CHECK(filled(p, 8192, 3));
	p[0] = 'y';
	board_post(b, 0);
	CHECK(child_exits(child) == 1 && p[1] == 'z');
	CHECK(shmdt(p) == 0);
	struct shmid_ds d;
	CHECK(shmctl(id, IPC_STAT, &d) == -1 && (errno == EINVAL || errno == EIDRM));
}

PROGRAM(sysv_semaphores, ANYONE, "System V semaphores with their values, and one that is waited for")
{
	int id = SYS(semget(0x4d494703, 3, IPC_CREAT | 0600));
	unsigned short values[3] = {4, 0, 32767}, now[3];
	CHECK(semctl(id, 0, SETALL, values) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		struct sembuf wait = {.sem_num = 1, .sem_op = -2};
		CHECK(semop(id, &wait, 1) == 0);
		_exit(5);
	}
	while (semctl(id, 1, GETNCNT) != 1)
		usleep(1000);
	ready();
	CHECK(semget(0x4d494703, 3, 0) == id && semctl(id, 0, GETALL, now) == 0);
	CHECK(now[0] == 4 && now[1] == 0 && now[2] == 32767);
	struct sembuf post = {.sem_num = 1, .sem_op = 2};
	CHECK(semop(id, &post, 1) == 0);
	CHECK(child_exits(child) == 5);
}

struct message {
	long type;
	char text[2000];
};

PROGRAM(sysv_messages, ANYONE, "a System V queue with messages of several types")
{
	int id = SYS(msgget(0x4d494704, IPC_CREAT | 0600));
	struct message m;
	for (int i = 0; i < 5; i++) {
		m.type = 1 + i % 2;
		fill(m.text, sizeof m.text, i);
		CHECK(msgsnd(id, &m, 100 * (i + 1), 0) == 0);
	}
	ready();
	CHECK(msgget(0x4d494704, 0) == id);
	for (int i = 1; i < 5; i += 2)
		CHECK(msgrcv(id, &m, sizeof m.text, 2, IPC_NOWAIT) == 100 * (i + 1) && filled(m.text, 100 * (i + 1), i));
	for (int i = 0; i < 5; i += 2)
		CHECK(msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT) == 100 * (i + 1) && m.type == 1 && filled(m.text, 100 * (i + 1), i));
	CHECK(msgrcv(id, &m, sizeof m.text, 0, IPC_NOWAIT) == -1 && errno == ENOMSG);
}

PROGRAM(posix_shm, ANYONE, "POSIX shared memory with a name, mapped by parent and child")
{
	int fd = SYS(shm_open("/mig-shm", O_RDWR | O_CREAT, 0600));
	CHECK(ftruncate(fd, 65536) == 0);
	char *p = SYS(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	fill(p, 65536, 4);
	close(fd);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(p[5] == 'q');
		_exit(2);
	}
	ready();
	CHECK(filled(p, 65536, 4));
	p[5] = 'q';
	board_post(b, 0);
	CHECK(child_exits(child) == 2);
	char c;
	CHECK(pread(SYS(shm_open("/mig-shm", O_RDONLY, 0)), &c, 1, 5) == 1 && c == 'q');
}

PROGRAM(posix_shm_removed, ANYONE, "POSIX shared memory whose name is gone")
{
	int fd = SYS(shm_open("/mig-gone", O_RDWR | O_CREAT, 0600));
	CHECK(ftruncate(fd, 8192) == 0 && shm_unlink("/mig-gone") == 0);
	char *p = SYS(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *q = SYS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096));
	fill(p, 8192, 5);
	ready();
	CHECK(filled(p, 8192, 5));
	p[4096] = 'w';
	CHECK(q[0] == 'w');
	char c;
	CHECK(pread(fd, &c, 1, 4096) == 1 && c == 'w');
}

PROGRAM(posix_semaphore, ANYONE, "a named semaphore")
{
	sem_t *s = sem_open("/mig-sem", O_CREAT, 0600, 3);
	CHECK(s != SEM_FAILED);
	ready();
	int value;
	CHECK(sem_getvalue(s, &value) == 0 && value == 3);
	sem_t *again = sem_open("/mig-sem", 0);
	CHECK(again != SEM_FAILED && sem_post(again) == 0);
	CHECK(sem_getvalue(s, &value) == 0 && value == 4);
}

PROGRAM(posix_semaphore_waited, ANYONE, "a semaphore between processes that one of them waits for")
{
	sem_t *s = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	CHECK(sem_init(s, 1, 0) == 0);
	pid_t child = SYS(fork());
	if (child == 0) {
		int got;
		do
			got = sem_wait(s);
		while (got == -1 && errno == EINTR);
		_exit(got ? 1 : 4);
	}
	usleep(20000);
	ready();
	CHECK(sem_post(s) == 0);
	CHECK(child_exits(child) == 4);
}

PROGRAM(memfd_mapped, ANYONE, "a mapped memfd, twice with different protections")
{
	int fd = SYS(memfd_create("double", MFD_CLOEXEC));
	CHECK(ftruncate(fd, 65536) == 0);
	char *w = SYS(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	char *x = SYS(mmap(NULL, 65536, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
	fill(w, 65536, 6);
	ready();
	CHECK(filled(w, 65536, 6) && filled(x, 65536, 6));
	unsigned char code[] = {0xb8, 7, 0, 0, 0, 0xc3};
	memcpy(w, code, sizeof code);
	CHECK(((int (*)(void))x)() == 7);
}

PROGRAM(memfd_closed, ANYONE, "a mapped memfd whose descriptor is closed, shared with a child")
{
	int fd = SYS(memfd_create("closed", 0));
	CHECK(ftruncate(fd, 8192) == 0);
	int *p = SYS(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	p[1] = 11;
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_await(b, 0, 1);
		CHECK(p[1] == 12);
		_exit(0);
	}
	ready();
	CHECK(p[1] == 11);
	p[1] = 12;
	board_post(b, 0);
	CHECK(child_exits(child) == 0);
}

PROGRAM(mapped_removed, ANYONE, "a mapped file without a name, shared and private")
{
	int fd = SYS(open("/tmp/mapped", O_RDWR | O_CREAT | O_TRUNC, 0600));
	CHECK(ftruncate(fd, 16384) == 0);
	char *s = SYS(mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	fill(s, 16384, 7);
	char *p = SYS(mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	p[100] = 'm';
	CHECK(unlink("/tmp/mapped") == 0);
	close(fd);
	ready();
	CHECK(filled(s, 16384, 7));
	CHECK(p[100] == 'm' && p[101] == s[101] && !memcmp(p + 4096, s + 4096, 12288));
	s[5000] = 'n';
	CHECK(p[5000] == 'n'); /* not copied yet */
}

PROGRAM(mqueue_messages, ANYONE, "POSIX message queues with messages of several priorities, in their order")
{
	struct mq_attr a = {.mq_maxmsg = 8, .mq_msgsize = 200};
	mqd_t q = SYS(mq_open("/full", O_CREAT | O_RDWR | O_NONBLOCK, 0600, &a));
	mqd_t other = SYS(mq_open("/other", O_CREAT | O_RDWR, 0600, &a));
	char text[200];
	for (int i = 0; i < 8; i++) {
		fill(text, i * 25, i);
		CHECK(mq_send(q, text, i * 25, i % 2 * 32767) == 0);
	}
	CHECK(mq_send(q, text, 1, 1) == -1 && errno == EAGAIN);
	CHECK(mq_send(other, "one", 3, 4) == 0);
	ready();
	CHECK(mq_getattr(q, &a) == 0 && a.mq_curmsgs == 8 && a.mq_maxmsg == 8 && a.mq_msgsize == 200);
	for (int k = 0; k < 8; k++) {
		unsigned prio;
		int i = k < 4 ? 2 * k + 1 : 2 * (k - 4);
		CHECK(mq_receive(q, text, sizeof text, &prio) == i * 25 && prio == (unsigned)i % 2 * 32767);
		CHECK(filled(text, i * 25, i));
	}
	CHECK(mq_receive(q, text, sizeof text, NULL) == -1 && errno == EAGAIN);
	CHECK(mq_receive(other, text, sizeof text, NULL) == 3 && memcmp(text, "one", 3) == 0);
}

PROGRAM(mqueue_blocked, ANYONE, "processes that wait for messages and for room in a POSIX message queue")
{
	struct mq_attr a = {.mq_maxmsg = 2, .mq_msgsize = 16};
	mqd_t full = SYS(mq_open("/room", O_CREAT | O_RDWR, 0600, &a));
	mqd_t empty = SYS(mq_open("/answers", O_CREAT | O_RDWR, 0600, &a));
	CHECK(mq_send(full, "a", 1, 0) == 0 && mq_send(full, "b", 1, 0) == 0);
	struct board *b = board_new();
	char text[16];
	pid_t reader = SYS(fork());
	if (reader == 0) {
		board_post(b, 0);
		CHECK(mq_receive(empty, text, sizeof text, NULL) == 6 && memcmp(text, "answer", 6) == 0);
		_exit(5);
	}
	pid_t writer = SYS(fork());
	if (writer == 0) {
		board_post(b, 1);
		CHECK(mq_send(full, "c", 1, 0) == 0);
		_exit(6);
	}
	board_await(b, 0, 1);
	board_await(b, 1, 1);
	ready();
	for (const char *c = "abc"; *c; c++)
		CHECK(mq_receive(full, text, sizeof text, NULL) == 1 && text[0] == *c);
	CHECK(mq_send(empty, "answer", 6, 0) == 0);
	CHECK(child_exits(reader) == 5 && child_exits(writer) == 6);
}
