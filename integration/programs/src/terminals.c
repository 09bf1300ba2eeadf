/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <sys/ioctl.h>
#include <termios.h>

static int master_and_slave(int *slave)
{
	char name[64];
	int master = SYS(posix_openpt(O_RDWR | O_NOCTTY)), number;
	CHECK(grantpt(master) == 0 && unlockpt(master) == 0);
	CHECK(ioctl(master, TIOCGPTN, &number) == 0);
	snprintf(name, sizeof name, "/dev/pts/%d", number);
	*slave = SYS(open(name, O_RDWR | O_NOCTTY));
	return master;
}

PROGRAM(tty_settings, ANYONE, "a terminal's settings and size")
{
	int slave, master = master_and_slave(&slave);
	struct termios set, now;
	struct winsize size = {.ws_row = 33, .ws_col = 77, .ws_xpixel = 5}, is;
	CHECK(tcgetattr(slave, &set) == 0);
	set.c_lflag &= ~(ECHO | ICANON);
	set.c_cc[VMIN] = 3;
	set.c_cc[VINTR] = 7;
	CHECK(tcsetattr(slave, TCSANOW, &set) == 0 && ioctl(master, TIOCSWINSZ, &size) == 0);
	ready();
	CHECK(tcgetattr(slave, &now) == 0 && now.c_lflag == set.c_lflag && now.c_cc[VMIN] == 3 && now.c_cc[VINTR] == 7);
	CHECK(ioctl(slave, TIOCGWINSZ, &is) == 0 && is.ws_row == 33 && is.ws_col == 77 && is.ws_xpixel == 5);
	char got[8];
	CHECK(write(master, "abc", 3) == 3 && read(slave, got, 8) == 3 && !memcmp(got, "abc", 3));
	CHECK(write(slave, "x", 1) == 1 && read(master, got, 8) == 1 && got[0] == 'x');
}

PROGRAM(tty_controlling, ANYONE, "a session with its terminal, and the signal of its interrupt character")
{
	int slave, master = master_and_slave(&slave);
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		SYS(setsid());
		CHECK(ioctl(slave, TIOCSCTTY, 0) == 0);
		signal(SIGINT, SIG_DFL);
		board_post(b, 0);
		for (;;)
			pause();
	}
	board_await(b, 0, 1);
	ready();
	CHECK(write(master, "\003", 1) == 1);
	int status;
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

PROGRAM(tty_foreground, ANYONE, "foreground and background groups; a background reader is stopped")
{
	int slave, master = master_and_slave(&slave);
	struct board *b = board_new();
	pid_t shell = SYS(fork());
	if (shell == 0) {
		SYS(setsid());
		CHECK(ioctl(slave, TIOCSCTTY, 0) == 0);
		pid_t job = SYS(fork());
		if (job == 0) {
			setpgid(0, 0);
			signal(SIGINT, SIG_DFL);
			board_post(b, 1);
			for (;;)
				pause();
		}
		setpgid(job, job);
		board_await(b, 1, 1);
		CHECK(tcsetpgrp(slave, job) == 0);
		board_post(b, 0);
		board_await(b, 2, 1);
		CHECK(tcgetpgrp(slave) == job && tcgetsid(slave) == getpid());
		CHECK(write(master, "\003", 1) == 1);
		int status;
		CHECK(waitpid(job, &status, 0) == job && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
		_exit(13);
	}
	board_await(b, 0, 1);
	ready();
	board_post(b, 2);
	CHECK(child_exits(shell) == 13);
}

PROGRAM(tty_hung_up, ANYONE, "a terminal whose master is gone")
{
	int slave, master = master_and_slave(&slave);
	close(master);
	char c;
	CHECK(read(slave, &c, 1) == 0 || errno == EIO);
	ready();
	CHECK(read(slave, &c, 1) == 0 || errno == EIO);
	CHECK(write(slave, "x", 1) == -1 && errno == EIO);
}

PROGRAM(job_stopped, ANYONE, "a stopped child stays stopped and goes on when told")
{
	struct board *b = board_new();
	pid_t child = SYS(fork());
	if (child == 0) {
		board_post(b, 0);
		board_await(b, 1, 1);
		_exit(15);
	}
	board_await(b, 0, 1);
	int status;
	CHECK(kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
	ready();
	board_post(b, 1);
	usleep(20000);
	CHECK(waitpid(child, &status, WNOHANG) == 0);
	CHECK(kill(child, SIGCONT) == 0);
	CHECK(waitpid(child, &status, WCONTINUED) == child);
	if (WIFCONTINUED(status))
		CHECK(child_exits(child) == 15);
	else
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 15);
}

static volatile sig_atomic_t input_signal, input_fd;

static void on_input(int signal, siginfo_t *info, void *context)
{
	(void)context;
	input_signal = signal;
	input_fd = info->si_fd;
}

PROGRAM(tty_async, ANYONE, "input of a terminal is told by a signal (O_ASYNC, F_SETOWN, F_SETSIG)")
{
	int master = SYS(posix_openpt(O_RDWR | O_NOCTTY)), unlock = 0, number;
	CHECK(ioctl(master, TIOCSPTLCK, &unlock) == 0 && ioctl(master, TIOCGPTN, &number) == 0);
	char path[32], got[8];
	snprintf(path, sizeof path, "/dev/pts/%d", number);
	int slave = SYS(open(path, O_RDWR | O_NOCTTY));
	struct sigaction action = {.sa_sigaction = on_input, .sa_flags = SA_SIGINFO | SA_RESTART};
	CHECK(sigaction(SIGRTMIN + 3, &action, NULL) == 0);
	CHECK(fcntl(slave, F_SETOWN, getpid()) == 0 && fcntl(slave, F_SETSIG, SIGRTMIN + 3) == 0 && fcntl(slave, F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
	ready();
	CHECK(input_signal == 0);
	CHECK(fcntl(slave, F_GETOWN) == getpid() && fcntl(slave, F_GETSIG) == SIGRTMIN + 3 && fcntl(slave, F_GETFL) & O_ASYNC);
	CHECK(write(master, "line\n", 5) == 5);
	for (int i = 0; i < 5000 && input_signal == 0; i++)
		usleep(1000);
	CHECK(input_signal == SIGRTMIN + 3 && input_fd == slave);
	CHECK(read(slave, got, sizeof got) == 5);
}
