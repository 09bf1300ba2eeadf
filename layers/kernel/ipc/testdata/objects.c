// SPDX-License-Identifier: Apache-2.0
//
// An IPC namespace with objects of all kinds, some of which a child uses, too.
// usage: objects [none|undo|threads|notify]
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { PAGE = 4096, SEMS = 5, MESSAGES = 40 };

static struct {
  int id;
  volatile char *at;
} shared, unused, removed, readonly, parts;
static char *moved; // page 6 of parts
static int sem, queue, empty;
static mqd_t posix, filled;
static pid_t child;
static long round;

struct message {
  long type;
  char text[5000];
};

static size_t length(int i) { return i == 0 ? 0 : i * 37 % 400; }

static void prepare(void) {
  MUST((shared.id = shmget(0x5eed, 3 * PAGE - 100, IPC_CREAT | 0600)) >= 0);
  shared.at = shmat(shared.id, NULL, 0);
  MUST(shared.at != (void *)-1);

  // An id that is not the first one of its slot: it was used before.
  MUST((unused.id = shmget(0x5eee, 1 << 20, IPC_CREAT | 0640)) >= 0 && shmctl(unused.id, IPC_RMID, NULL) == 0);
  MUST((unused.id = shmget(0x5eee, 1 << 20, IPC_CREAT | 0640)) >= 0);
  char *p = shmat(unused.id, NULL, 0);
  MUST(p != (void *)-1);
  strcpy(p + 77 * PAGE, "nobody has it");
  MUST(shmdt(p) == 0);

  MUST((removed.id = shmget(IPC_PRIVATE, 2 * PAGE, IPC_CREAT | 0600)) >= 0);
  removed.at = shmat(removed.id, NULL, 0);
  MUST(removed.at != (void *)-1 && shmctl(removed.id, IPC_RMID, NULL) == 0);
  strcpy((char *)removed.at, "removed");

  readonly.id = unused.id;
  readonly.at = shmat(readonly.id, NULL, SHM_RDONLY);
  MUST(readonly.at != (void *)-1);

  MUST((parts.id = shmget(0x5eef, 8 * PAGE, IPC_CREAT | 0600)) >= 0);
  parts.at = shmat(parts.id, NULL, 0);
  MUST(parts.at != (void *)-1);
  for (int i = 0; i < 8; i++) parts.at[i * PAGE] = 'a' + i;
  MUST(mprotect((void *)(parts.at + PAGE), PAGE, PROT_READ) == 0 && munmap((void *)(parts.at + 3 * PAGE), PAGE) == 0);
  moved = mremap((void *)(parts.at + 6 * PAGE), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)0x10000000000);
  MUST(moved != MAP_FAILED);

  MUST((sem = semget(0x5ef0, SEMS, IPC_CREAT | 0600)) >= 0);
  unsigned short v[SEMS] = {0, 1, 7, 32767, 0};
  MUST(semctl(sem, 0, SETALL, v) == 0);
  struct semid_ds ds;
  MUST(semctl(sem, 0, IPC_STAT, &ds) == 0);
  ds.sem_perm.mode = 0606;
  MUST(semctl(sem, 0, IPC_SET, &ds) == 0);

  MUST((empty = msgget(IPC_PRIVATE, 0600)) >= 0);
  MUST((queue = msgget(0x5ef1, IPC_CREAT | 0600)) >= 0);
  struct msqid_ds mq;
  MUST(msgctl(queue, IPC_STAT, &mq) == 0);
  mq.msg_qbytes = 12000;
  MUST(msgctl(queue, IPC_SET, &mq) == 0);
  for (int i = 0; i < MESSAGES; i++) {
    struct message m = {.type = 1 + i % 3};
    memset(m.text, i, length(i));
    MUST(msgsnd(queue, &m, length(i), IPC_NOWAIT) == 0);
  }

  struct mq_attr a = {.mq_maxmsg = 3, .mq_msgsize = 100};
  posix = mq_open("/jobs", O_CREAT | O_RDWR | O_NONBLOCK, 0620, &a);
  MUST(posix >= 0 && fchmod(posix, 0622) == 0);
  struct mq_attr f = {.mq_maxmsg = 9, .mq_msgsize = 300};
  MUST((filled = mq_open("/filled", O_CREAT | O_RDWR | O_NONBLOCK, 0640, &f)) >= 0);
  for (int i = 0; i < 9; i++) MUST(mq_send(filled, (char[300]){i, i}, i * 37 % 301, i % 3 * 16383) == 0);
}

// The child answers in the segment, when the second semaphore lets it.
static void answering(void) {
  for (;;) {
    struct sembuf take = {0, -1, 0}, give = {4, 1, 0};
    while (semop(sem, &take, 1) != 0) MUST(errno == EINTR);
    *(volatile long *)(shared.at + 8) = *(volatile long *)shared.at;
    MUST(semop(sem, &give, 1) == 0);
  }
}

static void memory(void) {
  struct shmid_ds ds;
  CHECK(shmget(0x5eed, 0, 0) == shared.id && shmget(0x5eee, 0, 0) == unused.id && shmget(0x5eef, 0, 0) == parts.id);
  CHECK(shmctl(shared.id, IPC_STAT, &ds) == 0 && ds.shm_segsz == 3 * PAGE - 100 && (ds.shm_perm.mode & 0777) == 0600);
  CHECK(ds.shm_perm.uid == geteuid() && ds.shm_perm.cuid == geteuid() && ds.shm_perm.gid == getegid(), "owner %d", ds.shm_perm.uid);
  CHECK(ds.shm_nattch == 2, "%ld have it attached", (long)ds.shm_nattch);
  CHECK(shmctl(unused.id, IPC_STAT, &ds) == 0 && (ds.shm_perm.mode & 0777) == 0640);
  CHECK(strcmp((char *)readonly.at + 77 * PAGE, "nobody has it") == 0);
  CHECK(mprotect((void *)readonly.at, PAGE, PROT_READ | PROT_WRITE) < 0, "a read-only attachment became writable");
  CHECK(strcmp((char *)removed.at, "removed") == 0);
  CHECK(shmctl(removed.id, IPC_STAT, &ds) == 0 && ds.shm_perm.mode & SHM_DEST, "it is not removed any more");
  CHECK(shmctl(parts.id, IPC_STAT, &ds) == 0 && ds.shm_nattch == 2 * 6, "%ld parts", (long)ds.shm_nattch);
  unsigned char in[8];
  for (int i = 0; i < 8; i++) {
    if (i == 3 || i == 6)
      CHECK(mincore((void *)(parts.at + i * PAGE), PAGE, in) < 0, "part %d is there", i);
    else
      CHECK(parts.at[i * PAGE] == 'a' + i, "part %d", i);
  }
  CHECK(moved[0] == 'a' + 6);
  char *again = shmat(parts.id, NULL, 0);
  CHECK(again != (void *)-1 && (again[6 * PAGE + 1] = round, moved[1] == (char)round));
  CHECK(shmdt(again) == 0);
  int p[2];
  CHECK(pipe(p) == 0 && write(p[1], "x", 1) == 1 && read(p[0], (void *)(parts.at + PAGE), 1) < 0 && errno == EFAULT, "a protected part can be written");
  close(p[0]), close(p[1]);
}

static void messages(void) {
  CHECK(msgget(0x5ef1, 0) == queue && msgctl(empty, IPC_STAT, &(struct msqid_ds){}) == 0);
  struct msqid_ds ds;
  int n = MESSAGES;
  CHECK(msgctl(queue, IPC_STAT, &ds) == 0 && (int)ds.msg_qnum == n, "%d messages", (int)ds.msg_qnum);
  CHECK(ds.msg_qbytes == 12000, "%d bytes at most", (int)ds.msg_qbytes);
  for (int i = 0; i < n; i++) { // and back into the queue
    struct message m;
    ssize_t got = msgrcv(queue, &m, sizeof m.text, 0, IPC_NOWAIT);
    CHECK(got == (ssize_t)length(i) && m.type == 1 + i % 3, "message %d has %zd bytes, type %ld", i, got, m.type);
    CHECK(got <= 0 || (m.text[0] == (char)i && m.text[got - 1] == (char)i), "message %d", i);
    CHECK(msgsnd(queue, &m, got > 0 ? got : 0, IPC_NOWAIT) == 0);
  }
}

static void posixes(void) {
  struct mq_attr a;
  struct stat st;
  char text[200];
  unsigned prio;
  CHECK(mq_getattr(posix, &a) == 0 && a.mq_maxmsg == 3 && a.mq_msgsize == 100 && a.mq_flags == O_NONBLOCK && a.mq_curmsgs == 0);
  CHECK(fstat(posix, &st) == 0 && (st.st_mode & 0777) == 0622 && st.st_uid == geteuid(), "mode %o", st.st_mode);
  mqd_t other = mq_open("/jobs", O_WRONLY);
  CHECK(other >= 0 && mq_send(other, "job", 3, 5) == 0 && mq_close(other) == 0);
  CHECK(mq_receive(posix, text, sizeof text, &prio) == 3 && prio == 5);
}

// By priority, and those of one priority in the order in which they were sent.
static void filledQueue(void) {
  struct mq_attr a;
  CHECK(mq_getattr(filled, &a) == 0 && a.mq_maxmsg == 9 && a.mq_msgsize == 300 && a.mq_curmsgs == 9, "%ld messages", a.mq_curmsgs);
  char text[9][300];
  ssize_t n[9];
  unsigned prio[9];
  for (int k = 0; k < 9; k++) {
    int i = 2 - k / 3 + k % 3 * 3;
    n[k] = mq_receive(filled, text[k], sizeof text[k], &prio[k]);
    CHECK(n[k] == i * 37 % 301 && prio[k] == i % 3 * 16383u, "message %d has %zd bytes, priority %u", k, n[k], prio[k]);
    CHECK(n[k] < 2 || (text[k][0] == i && text[k][1] == i), "message %d", k);
  }
  for (int k = 0; k < 9; k++) CHECK(mq_send(filled, text[k], n[k], prio[k]) == 0);
}

static void verify(void) {
  round++;
  memory();
  messages();
  posixes();
  filledQueue();
  unsigned short v[SEMS] = {9, 9, 9, 9, 9};
  struct semid_ds ds;
  CHECK(semget(0x5ef0, SEMS, 0) == sem && semctl(sem, 0, GETALL, v) == 0 && semctl(sem, 0, IPC_STAT, &ds) == 0);
  CHECK(v[0] == 0 && v[1] == 1 && v[2] == 7 && v[3] == 32767 && v[4] == 0, "%d %d %d %d %d", v[0], v[1], v[2], v[3], v[4]);
  CHECK((ds.sem_perm.mode & 0777) == 0606);
  *(volatile long *)shared.at = round;
  struct sembuf give = {0, 1, 0}, take = {4, -1, 0};
  struct timespec patience = {10, 0};
  CHECK(semop(sem, &give, 1) == 0 && semtimedop(sem, &take, 1, &patience) == 0, "the child does not answer");
  CHECK(*(volatile long *)(shared.at + 8) == round, "the child has another segment");
  CHECK(waitpid(child, NULL, WNOHANG) == 0);
}

static void nothing(void) {}
static void *waiting(void *arg) { return pause(), arg; }

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "all";
  if (!strcmp(kind, "all")) {
    prepare();
    MUST((child = fork()) >= 0);
    if (child == 0) answering();
    serve(verify);
  }
  if (!strcmp(kind, "undo") || !strcmp(kind, "threads")) {
    MUST((sem = semget(0x5ef0, 1, IPC_CREAT | 0600)) >= 0);
    pthread_t t;
    if (!strcmp(kind, "threads")) MUST(pthread_create(&t, NULL, waiting, NULL) == 0);
    struct sembuf op = {0, 1, SEM_UNDO};
    if (!strcmp(kind, "undo")) {
      int p[2];
      MUST(pipe(p) == 0 && (child = fork()) >= 0);
      if (child == 0) {
        MUST(semop(sem, &op, 1) == 0 && write(p[1], "x", 1) == 1);
        for (;;) pause();
      }
      MUST(read(p[0], p, 1) == 1);
    }
  }
  if (!strcmp(kind, "notify")) {
    MUST((posix = mq_open("/jobs", O_CREAT | O_RDWR, 0600, NULL)) >= 0);
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    MUST(mq_notify(posix, &e) == 0);
  }
  if (!strcmp(kind, "host")) {
    MUST((shared.id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600)) >= 0);
    shared.at = shmat(shared.id, NULL, 0);
    MUST(shared.at != (void *)-1 && shmctl(shared.id, IPC_RMID, NULL) == 0);
  }
  serve(nothing);
}
