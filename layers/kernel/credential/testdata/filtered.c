// SPDX-License-Identifier: Apache-2.0
//
// A program that restricts itself.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "kerneltest.h"

static void verify(void) { CHECK(prctl(PR_GET_SECCOMP) == 2); }

int main(void) {
  struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog p = {1, all};
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0);
  serve(verify);
}
