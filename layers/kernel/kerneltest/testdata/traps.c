// SPDX-License-Identifier: Apache-2.0
//
// A program that does one thing to its memory again and again, at full speed,
// and knows what has to be in it: what a copy of running memory can get wrong.
// argv[1] names the thing.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kerneltest.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { PAGE = 4096, WORDS = PAGE / 8, PAGES = 6144 };
#define SIZE ((size_t)PAGES * PAGE)
#define HUGE (2ul << 20)

static uint64_t *memory;
static uint64_t model[PAGES];  // what each page holds: 0 is nothing
static size_t pages = PAGES;   // that there are now
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t turns;

static uint64_t rnd(void) {
  static uint64_t x = 88172645463325252ull;
  return x ^= x << 13, x ^= x >> 7, x ^= x << 17;
}

static void put(size_t p) {
  uint64_t seed = rnd() | 1;
  for (size_t i = 0; i < WORDS; i++) memory[p * WORDS + i] = seed * (i + 1);
  model[p] = seed;
}

static void check_page(size_t p) {
  for (size_t i = 0; i < WORDS; i++)
    if (memory[p * WORDS + i] != model[p] * (i + 1)) {
      CHECK(0, "page %zu at %p holds %#lx where %#lx belongs", p, (void *)(memory + p * WORDS), memory[p * WORDS], model[p]);
      return;
    }
}

static void forget(size_t p, size_t n) {
  for (size_t i = 0; i < n; i++) model[p + i] = 0;
}

static void *fresh(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(p != MAP_FAILED);
  return p;
}

static void scribble(int n) {
  for (int i = 0; i < n; i++) put(rnd() % pages);
}

// Each thing is a turn that is made under the lock.

static void madvise_turn(void) {
  scribble(16);
  size_t n = rnd() % 8 ? rnd() % 20 + 1 : 512 + rnd() % 1024, p = rnd() % (pages - n);
  MUST(madvise(memory + p * WORDS, n * PAGE, MADV_DONTNEED) == 0);
  forget(p, n);
}

static void huge_turn(void) {
  scribble(4);
  size_t p = rnd() % (SIZE / HUGE - 1) * (HUGE / PAGE);
  if (rnd() % 4 == 0) {
    MUST(madvise(memory + p * WORDS, HUGE, MADV_DONTNEED) == 0);
    forget(p, HUGE / PAGE);
  } else if (rnd() % 4 == 0) {
    for (size_t i = 0; i < HUGE / PAGE; i++) put(p + i);
  }
}

static void munmap_turn(void) {
  scribble(16);
  size_t n = rnd() % 64 + 1, p = rnd() % (pages - n);
  void *at = memory + p * WORDS;
  MUST(munmap(at, n * PAGE) == 0);
  MUST(mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at);
  forget(p, n);
  if (rnd() % 2) put(p);
  n = rnd() % (64 * PAGE) + 1;
  void *other = fresh(n);
  *(char *)other = 1;
  MUST(munmap(other, n) == 0);
}

// All memory is there but for one hole, which is elsewhere at every moment: most page
// tables are whole whenever somebody looks, and not the next time.
static void hole_turn(void) {
  static size_t p, n;
  for (size_t i = 0; i < n; i++) put(p + i);
  n = rnd() % 4 ? rnd() % 64 + 1 : 512 + rnd() % 1024, p = rnd() % (pages - n);
  MUST(madvise(memory + p * WORDS, n * PAGE, MADV_DONTNEED) == 0);
  forget(p, n);
}

static void mremap_turn(void) {
  static void *home, *away;
  if (!home) home = memory, away = fresh(SIZE);
  scribble(16);
  void *to = memory == home ? away : home;
  size_t n = pages;
  if (rnd() % 2 && n > PAGES / 2) {  // shrinks first
    n -= rnd() % 64;
    MUST(mremap(memory, pages * PAGE, n * PAGE, 0) == memory);
    forget(n, pages - n);
  }
  pages = PAGES;
  MUST(mremap(memory, n * PAGE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  memory = to;
}

// Parts go away and come back, always the same ones: a mapping may not become one
// with its neighbours again, and mremap(2) moves one only.
static void part_turn(void) {
  scribble(4);
  size_t n = 32, p = rnd() % (pages / n) * n;
  uint64_t *at = memory + p * WORDS;
  uint64_t *to = fresh(n * PAGE);
  MUST(mremap(at, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  if (rnd() % 2) to[0] = model[p];
  MUST(mremap(to, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at);
  check_page(p);
}

// What was moved leaves nothing where it was, but a mapping.
static void leave_turn(void) {
  scribble(16);
  size_t n = rnd() % 16 + 1, p = rnd() % (pages - n);
  uint64_t *to = mremap(memory + p * WORDS, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  MUST(to != MAP_FAILED);
  uint64_t seed = model[p];
  forget(p, n);
  if (rnd() % 2) put(p);
  CHECK(to[WORDS - 1] == seed * WORDS, "page %zu became %#lx where %#lx belongs", p, to[WORDS - 1], seed * WORDS);
  MUST(munmap(to, n * PAGE) == 0);
}

// Somebody reads what is thrown away or moved, and must not wait for ever.
static _Atomic size_t hot;
static _Atomic uint64_t reads;

static void *reader(void *arg) {
  for (;; reads++) {
    volatile uint64_t *p = memory + hot * WORDS;
    (void)*p;
  }
  return arg;
}

static void reader_turn(void) {
  static int begun;
  pthread_t t;
  if (!begun++) MUST(pthread_create(&t, NULL, reader, NULL) == 0);
  scribble(4);
  size_t p = hot = rnd() % pages;
  void *at = memory + p * WORDS, *to = NULL;
  if (rnd() % 2) {
    MUST(madvise(at, PAGE, MADV_DONTNEED) == 0);
  } else {
    MUST((to = mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL)) != MAP_FAILED);
    MUST(munmap(to, PAGE) == 0);
  }
  forget(p, 1);
  uint64_t before = reads;
  for (int i = 0; i < 5000 && reads == before; i++) usleep(1000);
  CHECK(reads != before, "the reader of page %zu waits for ever", p);
}

// Several threads whose memory goes where another one's was.
enum { ROOMS = 4, ROOM = 256 };
static struct room {
  pthread_mutex_t lock;
  uint64_t *at, model[ROOM], seed;
  size_t pages;
} rooms[ROOMS];

static void fill_room(struct room *r, size_t p) {
  r->model[p] = r->seed = r->seed * 6364136223846793005ull + 1;
  for (size_t i = 0; i < WORDS; i++) r->at[p * WORDS + i] = r->model[p] * (i + 1);
}

static void check_room(struct room *r, size_t p) {
  uint64_t first = r->at[p * WORDS], last = r->at[(p + 1) * WORDS - 1];
  CHECK(first == r->model[p] && last == r->model[p] * WORDS, "page %zu of room %zu at %p holds %#lx where %#lx belongs", p, r - rooms,
        (void *)(r->at + p * WORDS), first, r->model[p]);
}

// resize is realloc(3) of a large piece: it may be moved, or copied where it is
// two mappings (docs/support.md).
static void resize(struct room *r, size_t n) {
  uint64_t *to = mremap(r->at, r->pages * PAGE, n * PAGE, MREMAP_MAYMOVE);
  if (to == MAP_FAILED) {
    MUST(errno == EFAULT);
    to = memcpy(fresh(n * PAGE), r->at, (n < r->pages ? n : r->pages) * PAGE);
    MUST(munmap(r->at, r->pages * PAGE) == 0);
  }
  r->at = to;
  for (size_t i = r->pages; i < n; i++) r->model[i] = 0;
  r->pages = n;
}

static void *tenant(void *arg) {
  struct room *r = arg;
  for (unsigned x = r - rooms + 1;;) {
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < 4; i++) check_room(r, rand_r(&x) % r->pages);
    resize(r, rand_r(&x) % ROOM + 1);
    fill_room(r, rand_r(&x) % r->pages);
    if (rand_r(&x) % 8 == 0) {
      MUST(munmap(r->at, r->pages * PAGE) == 0);
      r->at = fresh(r->pages * PAGE);
      memset(r->model, 0, sizeof r->model);
      for (size_t p = 0; p < r->pages; p += 2) fill_room(r, p);
    }
    pthread_mutex_unlock(&r->lock);
  }
  return NULL;
}

static void rooms_turn(void) {
  static int begun;
  pthread_t t;
  for (struct room *r = rooms; !begun && r < rooms + ROOMS; r++) {
    r->at = fresh((r->pages = ROOM) * PAGE), r->seed = r - rooms + 1;
    MUST(pthread_mutex_init(&r->lock, NULL) == 0 && pthread_create(&t, NULL, tenant, r) == 0);
  }
  begun = 1;
  struct room *r = rooms + rnd() % ROOMS;
  pthread_mutex_lock(&r->lock);
  for (size_t p = 0; p < r->pages; p++) check_room(r, p);
  pthread_mutex_unlock(&r->lock);
}

static void brk_turn(void) {
  scribble(16);
  size_t n = rnd() % 256;
  if (rnd() % 2 && pages > PAGES / 2 + n) {
    MUST(sbrk(-(long)n * PAGE) != (void *)-1);
    pages -= n;
    forget(pages, n);
  } else if (pages + n <= PAGES) {
    MUST(sbrk(n * PAGE) != (void *)-1);
    pages += n;
  }
}

static void protect_turn(void) {
  scribble(16);
  size_t n = rnd() % 64 + 1, p = rnd() % (pages - n);
  MUST(mprotect(memory + p * WORDS, n * PAGE, PROT_NONE) == 0);
  usleep(200);
  MUST(mprotect(memory + p * WORDS, n * PAGE, rnd() % 2 ? PROT_READ : PROT_READ | PROT_EXEC) == 0);
  check_page(p);
  MUST(mprotect(memory + p * WORDS, n * PAGE, PROT_READ | PROT_WRITE) == 0);
}

static void guard_turn(void) {
  scribble(16);
  size_t n = rnd() % 16 + 1, p = rnd() % (pages - n);
  MUST(madvise(memory + p * WORDS, n * PAGE, MADV_GUARD_INSTALL) == 0);
  forget(p, n);
  usleep(200);
  int fd[2];
  MUST(pipe(fd) == 0);
  CHECK(write(fd[1], memory + p * WORDS, 8) < 0 && errno == EFAULT, "a guard page can be read");
  close(fd[0]), close(fd[1]);
  MUST(madvise(memory + p * WORDS, n * PAGE, MADV_GUARD_REMOVE) == 0);
}

static void fork_turn(void) {
  scribble(16);
  pid_t pid = fork();
  if (pid == 0) {
    uint64_t seed = rnd();
    for (int i = 0; i < 64; i++) {
      check_page((seed + i * 37) % pages);
      put((seed + i * 41) % pages);
    }
    if (fails[0]) dprintf(2, "child: %s\n", fails);
    _exit(fails[0] ? 1 : 0);
  }
  int st = -1;
  CHECK(pid > 0 && waitpid(pid, &st, 0) == pid && st == 0, "child %d: %#x", pid, st);
}

// deep fills n kilobytes of stack and looks whether they stay.
static void __attribute__((noinline)) deep(int n, uint64_t seed) {
  volatile uint64_t room[128];
  for (int i = 0; i < 128; i++) room[i] = seed + i;
  if (n > 0) deep(n - 1, seed * 31);
  for (int i = 0; i < 128; i++)
    if (room[i] != seed + i) {
      CHECK(0, "the stack has changed, %d kilobytes from its end", n);
      return;
    }
}

static void stack_turn(void) {
  deep(rnd() % 4000, rnd());
  scribble(4);
}

// The kernel writes, not the program.
static void read_turn(void) {
  int fd[2];
  MUST(pipe(fd) == 0);
  uint64_t buf[WORDS];
  for (int i = 0; i < 8; i++) {
    size_t p = rnd() % pages;
    model[p] = rnd() | 1;
    for (size_t k = 0; k < WORDS; k++) buf[k] = model[p] * (k + 1);
    MUST(write(fd[1], buf, PAGE) == PAGE && read(fd[0], memory + p * WORDS, PAGE) == PAGE);
  }
  close(fd[0]), close(fd[1]);
}

static const struct {
  const char *name;
  void (*turn)(void);
} things[] = {
    {"madvise", madvise_turn}, {"huge", huge_turn},   {"hole", hole_turn},     {"munmap", munmap_turn}, {"mremap", mremap_turn}, {"brk", brk_turn},
    {"part", part_turn},       {"leave", leave_turn}, {"reader", reader_turn}, {"rooms", rooms_turn},
    {"protect", protect_turn}, {"guard", guard_turn}, {"fork", fork_turn},     {"stack", stack_turn},   {"read", read_turn},
};
static void (*turn)(void);

static void *worker(void *arg) {
  for (;;) {
    pthread_mutex_lock(&lock);
    turn();
    turns++;
    pthread_mutex_unlock(&lock);
  }
  return arg;
}

static void verify(void) {
  uint64_t before;
  pthread_mutex_lock(&lock);
  for (size_t p = 0; p < pages; p++) check_page(p);
  before = turns;
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < 10000 && turns == before; i++) usleep(1000);
  CHECK(turns > before, "no turn since the last look");
}

int main(int argc, char **argv) {
  MUST(argc == 2);
  for (size_t i = 0; i < sizeof things / sizeof *things; i++)
    if (!strcmp(argv[1], things[i].name)) turn = things[i].turn;
  MUST(turn);
  if (turn == brk_turn) {
    uintptr_t at = ((uintptr_t)sbrk(0) + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    MUST(brk((void *)(at + SIZE)) == 0);
    memory = (uint64_t *)at;
  } else {
    memory = (uint64_t *)(((uintptr_t)fresh(SIZE + HUGE) + HUGE - 1) & ~(HUGE - 1));
  }
  if (turn == huge_turn) MUST(madvise(memory, SIZE, MADV_HUGEPAGE) == 0);
  for (size_t p = 0; p < pages; p += turn == hole_turn ? 1 : 2) put(p);
  pthread_t t;
  pthread_attr_t a;
  MUST(pthread_attr_init(&a) == 0 && pthread_attr_setstacksize(&a, 8 << 20) == 0);
  if (turn == stack_turn) {  // the main thread's own stack grows
    ready();
    for (;;) {
      pthread_mutex_lock(&lock);
      turn();
      turns++;
      pthread_mutex_unlock(&lock);
      if (polled()) {
        for (size_t p = 0; p < pages; p++) check_page(p);
        answer();
      }
    }
  }
  MUST(pthread_create(&t, &a, worker, NULL) == 0);
  serve(verify);
}
