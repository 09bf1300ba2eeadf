// SPDX-License-Identifier: Apache-2.0
//
// System V shared memory of huge pages that needs none of them: nothing is reserved and
// nobody touches it. usage: huge BYTES
#define _GNU_SOURCE
#include <sys/ipc.h>
#include <sys/shm.h>

#include "kerneltest.h"

static int attached, alone;
static size_t size;

static void verify(void) {
  struct shmid_ds ds;
  CHECK(shmctl(attached, IPC_STAT, &ds) == 0 && ds.shm_nattch == 1 && ds.shm_segsz == size);
  CHECK(shmctl(alone, IPC_STAT, &ds) == 0 && ds.shm_nattch == 0 && ds.shm_segsz == size - 1);
}

int main(int argc, char **argv) {
  size = strtoul(argc > 1 ? argv[1] : "4194304", NULL, 0);
  int flags = IPC_CREAT | 0600 | SHM_HUGETLB | SHM_NORESERVE | 21 << 26;
  MUST((attached = shmget(0x5eed, size, flags)) >= 0 && shmat(attached, NULL, 0) != (void *)-1);
  MUST((alone = shmget(IPC_PRIVATE, size - 1, flags)) >= 0);
  serve(verify);
}
