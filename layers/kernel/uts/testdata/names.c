// SPDX-License-Identifier: Apache-2.0
//
// Changes the names of its UTS namespace.
#define _GNU_SOURCE
#include <sys/utsname.h>

#include "kerneltest.h"

int main(void) {
  MUST(sethostname("renamed", 7) == 0 && setdomainname("at.run.time", 11) == 0);
  ready();
  while (asked()) {
    struct utsname u;
    fails[0] = 0;
    CHECK(uname(&u) == 0 && !strcmp(u.nodename, "renamed"), "host name %s", u.nodename);
    CHECK(!strcmp(u.domainname, "at.run.time"), "domain name %s", u.domainname);
    answer();
  }
  return 0;
}
