// SPDX-License-Identifier: Apache-2.0
//
// An IPC namespace, with one object of each kind if there is an argument.
// usage: objects [MQUEUE_DIRECTORY]
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include "kerneltest.h"

static void verify(void) {}

int main(int argc, char **argv) {
  MUST(unshare(CLONE_NEWIPC) == 0);
  if (argc == 2) {
    MUST(mount("mqueue", argv[1], "mqueue", 0, "") == 0);
    MUST(shmget(0x5eed, 8192, IPC_CREAT | 0600) >= 0);
    MUST(semget(0x5eee, 1, IPC_CREAT | 0600) >= 0);
    MUST(msgget(0x5eef, IPC_CREAT | 0600) >= 0);
    mqd_t q = mq_open("/jobs", O_CREAT | O_RDWR, 0600, 0);
    MUST(q >= 0 && mq_close(q) == 0);
  }
  serve(verify);
}
