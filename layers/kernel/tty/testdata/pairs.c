// SPDX-License-Identifier: Apache-2.0
//
// A terminal multiplexer in small: masters in one process, sessions with
// controlling terminals and job control in others, and ends in every state.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

#include "kerneltest.h"

// child is a session on a terminal: its leader, a foreground job, and a
// stopped one.
static int master, report[2];
static pid_t leader;

static int index_of(int fd) {
  unsigned n;
  return ioctl(fd, TIOCGPTN, &n) ? -1 : (int)n;
}

static int open_master(int flags) {
  int m = open("/dev/ptmx", O_RDWR | O_NOCTTY | flags);
  MUST(m >= 0 && unlockpt(m) == 0);
  return m;
}

static int open_slave(int m, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/dev/pts/%d", index_of(m));
  int s = open(path, O_RDWR | O_NOCTTY | flags);
  MUST(s >= 0);
  return s;
}

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY);
  int n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return '?';
  text[n] = 0;
  char *p = strrchr(text, ')');
  return p ? p[2] : '?';
}

// comes_to waits for a state.
static int comes_to(pid_t pid, char state) {
  for (int i = 0; i < 5000 && state_of(pid) != state; i++) usleep(1000);
  return state_of(pid) == state;
}

// holds waits until so many bytes are unread: the kernel passes them on later.
static int holds(int fd, int want) {
  int n = -1;
  for (int i = 0; i < 5000 && n != want; i++) {
    if (ioctl(fd, FIONREAD, &n)) return 0;
    if (n != want) usleep(1000);
  }
  return n == want;
}

static void drain(int fd) {
  char text[4096];
  struct pollfd p = {fd, POLLIN, 0};
  while (poll(&p, 1, 0) == 1 && read(fd, text, sizeof text) > 0) {
  }
}

static volatile sig_atomic_t children, winches;
static void on_child(int sig) { children++; }
static void on_winch(int sig) { winches++; }

// session is the leader: it answers commands that it reads from its terminal.
static void session(void) {
  MUST(setsid() == getpid());
  int s = open_slave(master, 0);
  MUST(ioctl(s, TIOCSCTTY, 0) == 0);
  close(master);
  close(report[0]);
  int own = open("/dev/tty", O_RDWR);
  MUST(own >= 0);
  signal(SIGCHLD, on_child);
  signal(SIGWINCH, on_winch);
  signal(SIGTTOU, SIG_IGN);
  // A job of its own group, stopped and waited for, as a shell does.
  pid_t job = fork();
  if (job == 0) {
    setpgid(0, 0);
    signal(SIGCHLD, SIG_DFL);
    for (;;) pause();
  }
  setpgid(job, job);
  MUST(kill(job, SIGTSTP) == 0);
  int status;
  MUST(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status));
  // One in the foreground that has lost its leader's terminal descriptor.
  pid_t front = fork();
  if (front == 0) {
    setpgid(0, 0);
    close(s);
    for (;;) pause();
  }
  setpgid(front, front);
  MUST(tcsetpgrp(own, front) == 0);
  // A member of the session that has given the terminal up.
  pid_t lone = fork();
  if (lone == 0) {
    MUST(ioctl(own, TIOCNOTTY) == 0);
    for (;;) pause();
  }
  MUST(comes_to(lone, 'S') && comes_to(front, 'S'));
  children = 0;
  MUST(write(report[1], "s", 1) == 1);
  char c;
  while (read(report[1], &c, 1) == 1) {
    fails[0] = 0;
    CHECK(getsid(0) == getpid());
    CHECK(tcgetsid(own) == getpid());
    CHECK(tcgetpgrp(own) == front, "foreground %d, job %d", tcgetpgrp(own), front);
    // The engine lets go of one process after the other.
    CHECK(comes_to(job, 'T'), "state %c", state_of(job));
    CHECK(comes_to(front, 'S') && comes_to(lone, 'S'), "states %c, %c", state_of(front), state_of(lone));
    CHECK(children == 0 && winches == 0, "%d of SIGCHLD, %d of SIGWINCH", children, winches);
    CHECK(waitpid(job, &status, WUNTRACED | WNOHANG) == 0, "the stop is told once more");
    char path[64], line[1024] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", lone);
    int fd = open(path, O_RDONLY);
    MUST(read(fd, line, sizeof line - 1) > 0);
    close(fd);
    int nr = -1;
    sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %d", &nr);
    CHECK(nr == 0, "who gave up the terminal has %d", nr);
    // Stop and continue once more.
    CHECK(kill(job, SIGCONT) == 0);
    CHECK(comes_to(job, 'S'), "not continued: %c", state_of(job));
    CHECK(kill(job, SIGTSTP) == 0);
    CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status));
    children = 0;
    char text[600];
    int n = snprintf(text, sizeof text, "%s", fails[0] ? fails : "OK");
    MUST(write(report[1], text, n) == n);
  }
  exit(0);
}

int main(int argc, char **argv) {
  int owner = argc > 1 ? getuid() : 7, group = argc > 1 ? -1 : 8;
  int spare[4];
  for (int i = 0; i < 4; i++) spare[i] = open_master(0);
  master = open_master(O_NONBLOCK | O_CLOEXEC);
  int first = index_of(master);
  struct winsize size = {33, 111, 5, 7};
  MUST(ioctl(master, TIOCSWINSZ, &size) == 0);
  struct termios t;
  MUST(tcgetattr(master, &t) == 0);
  t.c_lflag &= ~ECHO;
  t.c_iflag |= IUTF8;
  t.c_cc[VINTR] = 7;
  cfsetspeed(&t, B115200);
  MUST(tcsetattr(master, TCSANOW, &t) == 0);
  int sp[2];
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
  report[0] = sp[0], report[1] = sp[1];
  leader = fork();
  if (leader == 0) session();
  close(report[1]);
  char c;
  MUST(read(report[0], &c, 1) == 1);
  // Numbers with a gap, and ends in other states.
  close(spare[0]);
  close(spare[2]);
  int locked = spare[1], one = 1;
  MUST(ioctl(locked, TIOCSPTLCK, &one) == 0);
  int packet = spare[3];
  int slave = open_slave(packet, O_NONBLOCK);
  MUST(ioctl(packet, TIOCPKT, &one) == 0);
  MUST(fchmod(slave, 0640) == 0 && fchown(slave, owner, group) == 0);
  int closed = open_master(0);  // takes number 0
  close(open_slave(closed, 0));
  int doomed = open_master(0);
  int hung = open_slave(doomed, 0);
  close(doomed);
  // The kernel keeps O_CLOEXEC among the flags of what TIOCGPTPEER opens.
  int peer = ioctl(packet, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  MUST(peer >= 0 && fcntl(peer, F_SETFD, 0) == 0);
  int both = dup(slave), again = open_slave(packet, O_RDONLY);
  // Unread in both directions, in packet mode and beside a line that is not
  // complete.
  int full = open_master(0), lines = open_slave(full, O_NONBLOCK);
  MUST(ioctl(full, TIOCPKT, &one) == 0);
  MUST(write(lines, "out\nput", 7) == 7 && write(full, "one\ntwo\nthr", 11) == 11);
  MUST(holds(lines, 8));
  int numbers[] = {first, index_of(locked), index_of(packet), index_of(closed)};
  ready();
  while (asked()) {
    fails[0] = 0;
    int now[] = {index_of(master), index_of(locked), index_of(packet), index_of(closed)};
    for (int i = 0; i < 4; i++) CHECK(now[i] == numbers[i], "terminal %d is number %d, was %d", i, now[i], numbers[i]);
    struct winsize w;
    CHECK(ioctl(master, TIOCGWINSZ, &w) == 0 && memcmp(&w, &size, sizeof w) == 0, "%d x %d", w.ws_row, w.ws_col);
    struct termios u;
    CHECK(tcgetattr(master, &u) == 0 && u.c_lflag == t.c_lflag && u.c_iflag == t.c_iflag && u.c_cc[VINTR] == 7);
    CHECK(cfgetospeed(&u) == B115200);
    CHECK((fcntl(master, F_GETFL) & O_NONBLOCK) && fcntl(master, F_GETFD) == FD_CLOEXEC);
    int on = -1;
    CHECK(ioctl(locked, TIOCGPTLCK, &on) == 0 && on == 1);
    CHECK(ioctl(master, TIOCGPTLCK, &on) == 0 && on == 0);
    CHECK(ioctl(packet, TIOCGPKT, &on) == 0 && on == 1);
    struct stat st;
    CHECK(fstat(slave, &st) == 0 && (st.st_mode & 0777) == 0640 && st.st_uid == (unsigned)owner && (group < 0 || st.st_gid == 8), "%o %d", st.st_mode, st.st_uid);
    CHECK(fcntl(peer, F_GETFD) == 0 && fcntl(slave, F_GETFD) == 0);
    CHECK((fcntl(slave, F_GETFL) & O_NONBLOCK) && (fcntl(both, F_GETFL) & O_NONBLOCK) && !(fcntl(again, F_GETFL) & O_NONBLOCK));
    struct pollfd p[] = {{closed, POLLIN, 0}, {packet, POLLIN, 0}, {hung, POLLIN, 0}, {locked, POLLIN, 0}};
    CHECK(poll(p, 4, 0) >= 2);
    CHECK(p[0].revents == POLLHUP && p[1].revents == 0 && (p[2].revents & POLLHUP) && p[3].revents == 0,
          "%x %x %x %x", p[0].revents, p[1].revents, p[2].revents, p[3].revents);
    CHECK(read(closed, &c, 1) == -1 && errno == EIO);
    CHECK(read(hung, &c, 1) == 0 && write(hung, "x", 1) == -1 && errno == EIO);
    // Data goes through, in packet mode with a byte in front.
    CHECK(write(both, "ab", 2) == 2);
    char text[700] = "";
    int n_read;
    p[1].revents = 0;
    CHECK(poll(&p[1], 1, 1000) == 1 && read(packet, text, 8) == 3 && memcmp(text, "\0ab", 3) == 0);
    // What is unread, once; then it is written again.
    n_read = read(full, text, sizeof text);
    CHECK(n_read >= 9 && !memcmp(text, "\0out\r\nput", 9), "read %d bytes", n_read);
    drain(full);
    CHECK(write(full, "ee\n", 3) == 3);
    CHECK(holds(lines, 14));
    CHECK(read(lines, text, 20) == 4 && !memcmp(text, "one\n", 4));
    CHECK(read(lines, text, 20) == 4 && !memcmp(text, "two\n", 4));
    CHECK(read(lines, text, 20) == 6 && !memcmp(text, "three\n", 6));
    drain(full);
    CHECK(write(lines, "out\nput", 7) == 7 && write(full, "one\ntwo\nthr", 11) == 11);
    CHECK(holds(lines, 8));
    // The session's own opinion.
    CHECK(write(report[0], "v", 1) == 1);
    int n = read(report[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    CHECK(strcmp(text, "OK") == 0, "the session says: %s", text);
    answer();
  }
  return 0;
}
