// Home lines between network namespaces, in user space: no netem, no ip command, nothing left behind.
//
//   wan line UP_BIT_S DOWN_BIT_S ONE_WAY_MS QUEUE_BYTES PEERS [4|6]
//       Makes PEERS network namespaces with one TUN device each (wan0; peer i is 10.77.0.(i+1), with 6 fd77::(i+1) alone) and carries
//       the packets between them. A packet waits in its sender's uplink, travels ONE_WAY_MS and waits in its receiver's downlink; both queues
//       are drop-tail. Prints one line of JSON when it carries, and its counts when it ends (SIGTERM, SIGINT or its parent's death).
//   wan plain
//       Makes one namespace with a loopback device and waits: whatever runs in it is counted apart from the rest of the machine.
//   wan enter PID FD COMMAND...
//       Runs COMMAND in the namespace that process PID holds as file descriptor FD; it gets SIGTERM when the caller dies.
//
// Namespaces live as long as this process and those in them. Without root it tries a user namespace of its own.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PEERS 16
#define DEVICE "wan0"

struct packet {
  double due;      // seconds, monotonic: when the next stage takes it
  uint64_t serial; // first in, first out among equals
  int arrived;     // 0: on its way to the receiver's line, 1: on its way out of it
  int receiver, length;
  unsigned char *bytes;
};

static struct packet *waiting; // a binary heap, earliest on top
static size_t num_waiting, room;
static volatile sig_atomic_t ended;

static void fail(const char *what) {
  fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void end(int number) { (void)number; ended = 1; }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int before(const struct packet *a, const struct packet *b) {
  return a->due < b->due || (a->due == b->due && a->serial < b->serial);
}

static void swap(size_t i, size_t j) {
  struct packet p = waiting[i];
  waiting[i] = waiting[j];
  waiting[j] = p;
}

static void put(struct packet p) {
  static uint64_t serial;
  if (num_waiting == room) {
    room = room ? 2 * room : 1024;
    waiting = realloc(waiting, room * sizeof *waiting);
    if (!waiting) fail("memory");
  }
  p.serial = serial++;
  size_t at = num_waiting++;
  waiting[at] = p;
  while (at && before(&waiting[at], &waiting[(at - 1) / 2])) {
    swap(at, (at - 1) / 2);
    at = (at - 1) / 2;
  }
}

static struct packet take(void) {
  struct packet first = waiting[0];
  waiting[0] = waiting[--num_waiting];
  for (size_t at = 0;;) {
    size_t least = at, left = 2 * at + 1;
    for (size_t child = left; child < left + 2 && child < num_waiting; child++)
      if (before(&waiting[child], &waiting[least])) least = child;
    if (least == at) return first;
    swap(at, least);
    at = least;
  }
}

static void write_text(const char *path, const char *text) {
  int f = open(path, O_WRONLY);
  if (f < 0 || write(f, text, strlen(text)) < 0) fail(path);
  close(f);
}

static void become_allowed(void) {
  if (geteuid() == 0) return;
  char text[64];
  unsigned uid = geteuid(), gid = getegid();
  if (unshare(CLONE_NEWUSER)) fail("no root, and no user namespace");
  write_text("/proc/self/setgroups", "deny");
  snprintf(text, sizeof text, "0 %u 1", uid);
  write_text("/proc/self/uid_map", text);
  snprintf(text, sizeof text, "0 %u 1", gid);
  write_text("/proc/self/gid_map", text);
}

static void raise_interface(const char *name, const char *address) {
  struct ifreq r = {0};
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  if (s < 0) fail("socket");
  strncpy(r.ifr_name, name, IFNAMSIZ - 1);
  struct sockaddr_in *to = (struct sockaddr_in *)&r.ifr_addr;
  if (address) {
    to->sin_family = AF_INET;
    inet_pton(AF_INET, address, &to->sin_addr);
    if (ioctl(s, SIOCSIFADDR, &r)) fail("address");
    inet_pton(AF_INET, "255.255.255.0", &to->sin_addr);
    if (ioctl(s, SIOCSIFNETMASK, &r)) fail("netmask");
    r.ifr_qlen = 4096;
    if (ioctl(s, SIOCSIFTXQLEN, &r)) fail("queue length");
  }
  if (ioctl(s, SIOCGIFFLAGS, &r)) fail("interface");
  r.ifr_flags |= IFF_UP | IFF_RUNNING;
  if (ioctl(s, SIOCSIFFLAGS, &r)) fail("interface up");
  close(s);
}

static void give_address6(const char *name, const char *address) {
  struct ifreq r = {0};
  struct in6_ifreq of = {0};
  int s = socket(AF_INET6, SOCK_DGRAM, 0);
  if (s < 0) fail("no IPv6");
  strncpy(r.ifr_name, name, IFNAMSIZ - 1);
  r.ifr_qlen = 4096;
  if (ioctl(s, SIOCSIFTXQLEN, &r)) fail("queue length");
  if (ioctl(s, SIOCGIFFLAGS, &r)) fail("interface");
  r.ifr_flags |= IFF_UP | IFF_RUNNING;
  if (ioctl(s, SIOCSIFFLAGS, &r)) fail("interface up");
  if (ioctl(s, SIOCGIFINDEX, &r)) fail("interface index");
  inet_pton(AF_INET6, address, &of.ifr6_addr);
  of.ifr6_prefixlen = 64;
  of.ifr6_ifindex = r.ifr_ifindex;
  if (ioctl(s, SIOCSIFADDR, &of)) fail("IPv6 address");
  close(s);
}

// The peer that a packet of n bytes is for; -1: nobody here.
static int receiver_of(const unsigned char *packet, ssize_t n) {
  static const unsigned char prefix4[3] = {10, 77, 0}, prefix6[15] = {0xfd, 0x77};
  if (n >= 20 && packet[0] >> 4 == 4 && !memcmp(packet + 16, prefix4, sizeof prefix4)) return packet[19] - 1;
  if (n >= 40 && packet[0] >> 4 == 6 && !memcmp(packet + 24, prefix6, sizeof prefix6)) return packet[39] - 1;
  return -1;
}

static int new_namespace(void) {
  if (unshare(CLONE_NEWNET)) fail("network namespace");
  raise_interface("lo", NULL);
  int held = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (held < 0) fail("/proc/self/ns/net");
  return held;
}

static void stop_with_parent(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() == 1) ended = 1;
}

static int plain(void) {
  become_allowed();
  stop_with_parent();
  printf("{\"pid\": %d, \"namespaces\": [%d]}\n", getpid(), new_namespace());
  fflush(stdout);
  while (!ended) pause();
  return 0;
}

static int line(double up, double down, double delay, double queue, int peers, int version) {
  int tun[MAX_PEERS];
  double up_free[MAX_PEERS] = {0}, down_free[MAX_PEERS] = {0}; // when the line has sent all that waits for it
  unsigned long sent[MAX_PEERS] = {0}, received[MAX_PEERS] = {0}, dropped[MAX_PEERS] = {0};
  struct pollfd ready[MAX_PEERS];
  static unsigned char buffer[65536];

  become_allowed();
  stop_with_parent();
  char names[MAX_PEERS * 12] = "";
  for (int i = 0; i < peers; i++) {
    char address[32];
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int held = new_namespace();
    tun[i] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun[i] < 0) fail("/dev/net/tun");
    strcpy(r.ifr_name, DEVICE);
    if (ioctl(tun[i], TUNSETIFF, &r)) fail("TUN device");
    if (version == 6) {
      snprintf(address, sizeof address, "fd77::%x", i + 1);
      give_address6(DEVICE, address);
    } else {
      snprintf(address, sizeof address, "10.77.0.%d", i + 1);
      raise_interface(DEVICE, address);
    }
    snprintf(names + strlen(names), 12, "%s%d", i ? ", " : "", held);
    ready[i].fd = tun[i];
    ready[i].events = POLLIN;
  }
  printf("{\"pid\": %d, \"namespaces\": [%s]}\n", getpid(), names);
  fflush(stdout);

  while (!ended) {
    double t = now();
    while (num_waiting && waiting[0].due <= t) {
      struct packet p = take();
      int to = p.receiver;
      if (p.arrived) {
        if (write(tun[to], p.bytes, (size_t)p.length) == p.length) received[to] += (unsigned long)p.length;
        free(p.bytes);
        continue;
      }
      double start = down_free[to] > p.due ? down_free[to] : p.due;
      if ((start - p.due) * down / 8 > queue) {
        dropped[to]++;
        free(p.bytes);
        continue;
      }
      p.due = down_free[to] = start + p.length * 8 / down;
      p.arrived = 1;
      put(p);
    }
    struct timespec wait, *limit = NULL;
    if (num_waiting) {
      double left = waiting[0].due - now();
      if (left < 0) left = 0;
      wait.tv_sec = (time_t)left;
      wait.tv_nsec = (long)((left - (double)wait.tv_sec) * 1e9);
      limit = &wait;
    }
    if (ppoll(ready, (nfds_t)peers, limit, NULL) <= 0) continue;
    t = now();
    for (int i = 0; i < peers; i++) {
      if (!(ready[i].revents & POLLIN)) continue;
      for (int burst = 0; burst < 64; burst++) {
        ssize_t n = read(tun[i], buffer, sizeof buffer);
        if (n <= 0) break;
        int to = receiver_of(buffer, n);
        if (to < 0 || to >= peers) continue;
        double start = up_free[i] > t ? up_free[i] : t;
        if ((start - t) * up / 8 > queue) {
          dropped[i]++;
          continue;
        }
        up_free[i] = start + (double)n * 8 / up;
        sent[i] += (unsigned long)n;
        struct packet p = {.due = up_free[i] + delay, .receiver = to, .length = (int)n, .bytes = malloc((size_t)n)};
        if (!p.bytes) fail("memory");
        memcpy(p.bytes, buffer, (size_t)n);
        put(p);
      }
    }
  }
  printf("[");
  for (int i = 0; i < peers; i++)
    printf("%s{\"sent\": %lu, \"received\": %lu, \"dropped\": %lu}", i ? ", " : "", sent[i], received[i], dropped[i]);
  printf("]\n");
  return 0;
}

static int enter(const char *pid, const char *fd, char **command) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, fd);
  int net = open(path, O_RDONLY | O_CLOEXEC);
  if (net < 0) fail(path);
  if (geteuid() != 0) {
    snprintf(path, sizeof path, "/proc/%s/ns/user", pid);
    int user = open(path, O_RDONLY | O_CLOEXEC);
    if (user < 0 || setns(user, CLONE_NEWUSER)) fail(path);
  }
  if (setns(net, CLONE_NEWNET)) fail("setns");
  prctl(PR_SET_PDEATHSIG, SIGTERM); // a killed benchmark leaves no swarm behind
  execvp(command[0], command);
  fail(command[0]);
  return 1;
}

int main(int argc, char **argv) {
  if (argc >= 5 && !strcmp(argv[1], "enter")) return enter(argv[2], argv[3], argv + 4);
  if (argc == 2 && !strcmp(argv[1], "plain")) return plain();
  if (argc >= 7 && argc <= 8 && !strcmp(argv[1], "line")) {
    double up = atof(argv[2]), down = atof(argv[3]), delay = atof(argv[4]) / 1e3, queue = atof(argv[5]);
    int peers = atoi(argv[6]), version = argc == 8 ? atoi(argv[7]) : 4;
    if (up > 0 && down > 0 && delay >= 0 && queue > 0 && peers > 0 && peers <= MAX_PEERS && (version == 4 || version == 6))
      return line(up, down, delay, queue, peers, version);
  }
  fprintf(stderr, "usage: wan line UP_BIT_S DOWN_BIT_S ONE_WAY_MS QUEUE_BYTES PEERS [4|6] | wan plain | wan enter PID FD COMMAND...\n");
  return 2;
}
