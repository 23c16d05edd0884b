// The only program in the test machine: inserts modules as /jobs says and reports what the kernel answered.
//
// /jobs has one step a line, fields separated by tabs, numbers decimal:
//   need ID keep|free FLAGS NAME PATH   a prerequisite of case ID; one to keep stays for later cases
//   test ID FLAGS NAME PATH             the module that case ID is about, with FLAGS of finit_module(2)
//   tool ID PROGRAM NAME PATH           the same, but `PROGRAM PATH` inserts it
// What earlier cases inserted and this one does not need is removed first, last come first gone.
//
// Standard output, one line an event: NONCE NUMBER CRC32 KIND VALUES. The nonce comes from the kernel's command line, so that
// no module's message can pass for an answer; the number and the CRC (of KIND VALUES) betray what is lost or garbled:
//   boot RELEASE | case ID | kmsg TEXT | lost | needed NAME RESULT ACCEPTED | inserted NAME RESULT ACCEPTED |
//   removed NAME ERRNO | end | broken WHY
// RESULT is an errno, or the program's exit status. ACCEPTED is 1 where the loader came to its end (its tracepoint
// module:module_load) and only the module's own init function was left to say no. What cannot be removed
// ends the boot: the next case needs a fresh machine.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_MODULES 512
#define FIELDS 6
#define TRACING "/sys/kernel/tracing"

struct module {
	char *id, *name, *path;
	int keep, flags;
};

static struct module loaded[MAX_MODULES], needs[MAX_MODULES];
static int loaded_count, needs_count, kmsg, trace;
static const char *nonce;
static unsigned number;

static uint32_t crc32(const char *text)
{
	uint32_t crc = ~0u;

	for (; *text; text++) {
		crc ^= (unsigned char)*text;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
	}
	return ~crc;
}

static void put(const char *line, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = write(STDOUT_FILENO, line + done, size - done);
		if (n > 0)
			done += n;
	}
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	static char text[10000], line[10100];
	va_list values;

	va_start(values, format);
	vsnprintf(text, sizeof text, format, values);
	va_end(values);
	put(line, snprintf(line, sizeof line, "%s %u %08x %s\n", nonce, ++number, crc32(text), text));
}

static void power_off(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void fail(const char *what)
{
	say("broken %s: %s", what, strerror(errno));
	power_off();
}

// A record of /dev/kmsg is "priority,sequence,time,flags;text\n KEY=value\n"; EPIPE says that some were overwritten.
static void report_kmsg(void)
{
	char record[8192];

	for (;;) {
		ssize_t size = read(kmsg, record, sizeof record - 1);
		if (size < 0 && errno == EPIPE) {
			say("lost");
			continue;
		}
		if (size <= 0)
			return;
		record[size] = 0;
		char *text = strchr(record, ';');
		if (!text)
			fail("/dev/kmsg");
		text[strcspn(text, "\n")] = 0;
		say("kmsg %s", text + 1);
	}
}

// Whether the tracepoint named this module since the last look: "… module_load: NAME TAINTS"
static int was_accepted(const char *name)
{
	static char text[65536];
	char wanted[128];
	ssize_t size = 0, n;

	while ((n = read(trace, text + size, sizeof text - 1 - size)) > 0)
		size += n;
	text[size] = 0;
	snprintf(wanted, sizeof wanted, "module_load: %s ", name);
	return strstr(text, wanted) != NULL;
}

static int insert(const struct module *m)
{
	int fd = open(m->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(m->path);
	int result = syscall(SYS_finit_module, fd, "", m->flags) ? errno : 0;
	close(fd);
	return result;
}

static int insert_with(const char *program, const struct module *m)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	if (child == 0) {
		// What it says gets among the kernel's messages.
		int log = open("/dev/kmsg", O_WRONLY);
		dup2(log, STDOUT_FILENO);
		dup2(log, STDERR_FILENO);
		execl(program, program, m->path, (char *)NULL);
		_exit(127);
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		fail(program);
	return WEXITSTATUS(status);
}

static int is_among(const char *path, const struct module *modules, int count)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(modules[i].path, path))
			return 1;
	return 0;
}

static void add(struct module *modules, int *count, const struct module *m)
{
	if (*count == MAX_MODULES)
		fail("too many modules");
	modules[(*count)++] = *m;
}

static void remove_unneeded(void)
{
	for (int i = loaded_count - 1; i >= 0; i--) {
		struct module *m = &loaded[i];
		if (m->keep || is_among(m->path, needs, needs_count))
			continue;
		int result = syscall(SYS_delete_module, m->name, O_NONBLOCK) ? errno : 0;
		report_kmsg();
		say("removed %s %d", m->name, result);
		if (result)
			power_off();
		memmove(m, m + 1, (loaded_count - i - 1) * sizeof *m);
		loaded_count--;
	}
}

static void try(const struct module *m, const char *program, const char *kind)
{
	was_accepted("");
	int result = program ? insert_with(program, m) : insert(m);
	int accepted = was_accepted(m->name);
	if (result == 0)
		add(loaded, &loaded_count, m);
	report_kmsg();
	say("%s %s %d %d", kind, m->name, result, accepted);
}

static void run(const struct module *m, const char *program)
{
	remove_unneeded();
	say("case %s", m->id);
	for (int i = 0; i < needs_count; i++)
		if (!is_among(needs[i].path, loaded, loaded_count))
			try(&needs[i], NULL, "needed");
	needs_count = 0;
	try(m, program, "inserted");
}

static void step(char *line)
{
	char *field[FIELDS] = { NULL };

	line[strcspn(line, "\n")] = 0;
	for (int i = 0; i < FIELDS && line; i++)
		field[i] = strsep(&line, "\t");
	if (!strcmp(field[0], "need")) {
		struct module m = { field[1], field[4], field[5], !strcmp(field[2], "keep"), atoi(field[3]) };
		add(needs, &needs_count, &m);
	} else {
		struct module m = { field[1], field[3], field[4], 0, atoi(field[2]) };
		run(&m, strcmp(field[0], "tool") ? NULL : field[2]);
	}
}

static int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	return fd;
}

static void prepare(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
	    mount("tracefs", TRACING, "tracefs", 0, NULL))
		fail("mount");
	int enable = must_open(TRACING "/events/module/module_load/enable", O_WRONLY);
	if (write(enable, "1", 1) != 1)
		fail("tracepoint");
	close(enable);
	kmsg = must_open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	lseek(kmsg, 0, SEEK_END);
	trace = must_open(TRACING "/trace_pipe", O_RDONLY | O_NONBLOCK);
}

int main(void)
{
	static char *line;
	size_t size;
	struct utsname uts;

	nonce = getenv("nonce");
	if (!nonce || getpid() != 1)
		return 1;
	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	dup2(open("/dev/ttyS0", O_RDWR | O_NOCTTY), STDOUT_FILENO);
	prepare();
	uname(&uts);
	put("\n", 1); // behind whatever a firmware wrote last
	say("boot %s", uts.release);
	FILE *jobs = fopen("/jobs", "re");
	if (!jobs)
		fail("/jobs");
	// Each line's memory stays: the values of modules point into it.
	for (line = NULL, size = 0; getline(&line, &size, jobs) > 0; line = NULL, size = 0)
		step(line);
	remove_unneeded();
	say("end");
	power_off();
}
