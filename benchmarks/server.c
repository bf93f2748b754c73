/* A fast loopback server that answers chat completions, for the benchmarks. One thread, epoll, HTTP/1.1 keep-alive.

   server [--port N] [--median MS] [--sigma S] [--straggler N:MS] [--rate R --burst B] [--window N:SECONDS]...
          [--change-at N:RATE] [--retry-after S] [--length MEAN:SIGMA] [--seed N]
          [--random SHARE] [--fixed N:SECONDS] [--slump FROM:TO:RATE] [--cap N] [--slots N] [--tls CERTIFICATE]

   --random refuses so many by chance; --fixed has windows one after the other, with a Retry-After to their end in whole
   seconds; --slump has another rate from one second to another, counted from the first POST; --cap refuses what is more
   than N at a time; --slots never refuses: it works on N at a time, the rest waits; --tls (where compiled with -DTLS)
   speaks TLS, with the certificate and key that a PEM file holds.

   It prints its port. POST answers a completion, or 429 with an error envelope. GET /books gives one line per POST:
   arrival in seconds, HTTP status, tokens. GET /count gives how many were answered and rejected, GET /metrics
   how many are worked on and how many wait, as vLLM tells it. GET /reset
   forgets the books. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
static SSL_CTX *tls;
#else
typedef void SSL;
#endif

enum { MAX_FD = 65536, MAX_WINDOWS = 8, HEAD = 8192 };

typedef struct { char *in; size_t have, room; char *out; size_t out_len, out_sent; int generation; SSL *ssl; } Conn;
typedef struct { double due; int fd, generation; char *data; size_t len; } Late;
typedef struct { double at; int status, tokens; } Line;
typedef struct { int amount; double seconds; size_t oldest; } Window;

static Conn *conns[MAX_FD];
static int generations[MAX_FD];
static Late *heap; static size_t heap_len, heap_room;
static Line *books; static size_t books_len, books_room;
static double *accepted; static size_t accepted_len, accepted_room;
static Window windows[MAX_WINDOWS]; static int n_windows;
static double median_s, sigma, rate, burst = 1, level, level_at, retry_after = -1, length_mean = 5, length_sigma;
static double straggler_s, change_rate; static long straggler_every, change_at;
static long served, answered, rejected, tallied_requests;
static uint64_t seed = 1;
static double random_share, fixed_s, first_at, slump_from, slump_to, slump_rate, *slot_free; static int fixed_n, cap, n_slots;
static long fixed_window = -1, fixed_used, running;
static int epoll_fd;

static double now_s(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9;
}
static double uniform(void) { /* xorshift64* */
  seed ^= seed >> 12; seed ^= seed << 25; seed ^= seed >> 27;
  return ((seed * 2685821657736338717ULL) >> 11) * (1.0 / 9007199254740992.0);
}
static double normal(void) { return sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform()); }
static void *grow(void *p, size_t *room, size_t need, size_t size) {
  if (need <= *room) return p;
  while (*room < need) *room = *room ? 2 * *room : 1024;
  p = realloc(p, *room * size); if (!p) abort(); return p;
}

static void heap_push(Late late) {
  heap = grow(heap, &heap_room, heap_len + 1, sizeof *heap);
  size_t i = heap_len++;
  while (i && heap[(i - 1) / 2].due > late.due) { heap[i] = heap[(i - 1) / 2]; i = (i - 1) / 2; }
  heap[i] = late;
}
static Late heap_pop(void) {
  Late top = heap[0], last = heap[--heap_len]; size_t i = 0, c;
  while ((c = 2 * i + 1) < heap_len) {
    if (c + 1 < heap_len && heap[c + 1].due < heap[c].due) c++;
    if (heap[c].due >= last.due) break;
    heap[i] = heap[c]; i = c;
  }
  heap[i] = last; return top;
}

#ifdef TLS
static ssize_t tls_result(Conn *c, int n) { /* as recv and send would say it */
  if (n > 0) return n;
  int why = SSL_get_error(c->ssl, n);
  errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
  return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}
static ssize_t take(int fd, Conn *c, char *into, size_t room) {
  return c->ssl ? tls_result(c, SSL_read(c->ssl, into, (int)room)) : recv(fd, into, room, 0);
}
static ssize_t give(int fd, Conn *c, const char *data, size_t len) {
  return c->ssl ? tls_result(c, SSL_write(c->ssl, data, (int)len)) : send(fd, data, len, MSG_NOSIGNAL);
}
static void begin_tls(int fd, Conn *c) {
  if (!tls) return;
  c->ssl = SSL_new(tls); SSL_set_fd(c->ssl, fd); SSL_set_accept_state(c->ssl);
}
static int load_tls(const char *pem) {
  tls = SSL_CTX_new(TLS_server_method());
  SSL_CTX_set_mode(tls, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_ENABLE_PARTIAL_WRITE);
  return SSL_CTX_use_certificate_chain_file(tls, pem) == 1 && SSL_CTX_use_PrivateKey_file(tls, pem, SSL_FILETYPE_PEM) == 1;
}
#else
#define take(fd, c, into, room) recv(fd, into, room, 0)
#define give(fd, c, data, len) send(fd, data, len, MSG_NOSIGNAL)
#define begin_tls(fd, c)
#define SSL_free(ssl)
#define load_tls(pem) 0
#endif

static void drop(int fd) {
  Conn *c = conns[fd]; if (!c) return;
  SSL_free(c->ssl); free(c->in); free(c->out); free(c); conns[fd] = NULL; generations[fd]++; close(fd);
}
static void flush(int fd) {
  Conn *c = conns[fd];
  while (c->out_sent < c->out_len) {
    ssize_t n = give(fd, c, c->out + c->out_sent, c->out_len - c->out_sent);
    if (n < 0) {
      if (errno != EAGAIN) { drop(fd); return; }
      struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.fd = fd};
      epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e); return;
    }
    c->out_sent += (size_t)n;
  }
  c->out_len = c->out_sent = 0;
}
static void say(int fd, const char *data, size_t len) {
  Conn *c = conns[fd];
  c->out = realloc(c->out, c->out_len + len); if (!c->out) abort();
  memcpy(c->out + c->out_len, data, len); c->out_len += len; flush(fd);
}

static int admit(double now) { /* whether the limits let one more request in */
  if (change_at && tallied_requests >= change_at) rate = change_rate;
  if (random_share > 0 && uniform() < random_share) return 0;
  if (cap && running >= cap) return 0;
  if (fixed_n) {
    long window = (long)((now - first_at) / fixed_s);
    if (window != fixed_window) { fixed_window = window; fixed_used = 0; }
    retry_after = ceil((window + 1) * fixed_s - (now - first_at));
    if (fixed_used >= fixed_n) return 0;
    fixed_used++;
  }
  if (rate > 0) {
    double since = now - first_at, yields = slump_rate > 0 && since >= slump_from && since < slump_to ? slump_rate : rate;
    level = fmin(burst, level + (now - level_at) * yields); level_at = now;
    if (level < 1) return 0;
  }
  for (int i = 0; i < n_windows; i++) {
    Window *w = &windows[i];
    while (w->oldest < accepted_len && accepted[w->oldest] <= now - w->seconds) w->oldest++;
    if (accepted_len - w->oldest >= (size_t)w->amount) return 0;
  }
  if (rate > 0) level -= 1;
  if (n_windows) {
    accepted = grow(accepted, &accepted_room, accepted_len + 1, sizeof *accepted); accepted[accepted_len++] = now;
  }
  return 1;
}
static void note(double at, int status, int tokens) {
  books = grow(books, &books_room, books_len + 1, sizeof *books);
  books[books_len++] = (Line){at, status, tokens};
}

static size_t refusal(char *out) {
  char body[512], wait[64] = "";
  int n = snprintf(body, sizeof body, "{\"error\":{\"code\":\"rate_limited\",\"message\":\"too many requests\","
                   "\"retryable\":true,\"request_id\":\"req-%ld\"}}", served);
  if (retry_after >= 0) snprintf(wait, sizeof wait, "Retry-After: %g\r\n", retry_after);
  return (size_t)snprintf(out, HEAD, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
                          "X-Request-Id: req-%ld\r\n%sContent-Length: %d\r\n\r\n%s", served, wait, n, body);
}
static size_t completion(char *out, size_t request_len, int *tokens) {
  char body[4096], text[2049]; int words = (int)length_mean;
  if (length_sigma > 0) words = (int)fmin(400, fmax(1, length_mean * exp(length_sigma * normal())));
  int at = 0; for (int i = 0; i < words; i++) at += sprintf(text + at, i ? " good" : "good");
  int prompt = (int)(request_len / 4); *tokens = prompt + words;
  int n = snprintf(body, sizeof body, "{\"id\":\"chatcmpl-%ld\",\"object\":\"chat.completion\",\"created\":1760000000,"
                   "\"model\":\"bench-1\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
                   "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
                   "\"total_tokens\":%d,\"credits\":%.6f,\"credits_usd_reference\":%.8f}}",
                   served, text, prompt, words, *tokens, *tokens * 1e-5, *tokens * 1e-7);
  return (size_t)snprintf(out, HEAD, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: req-%ld\r\n"
                          "Content-Length: %d\r\n\r\n%s", served, n, body);
}

static void answer_post(int fd, size_t request_len) {
  char out[HEAD]; size_t len; int tokens = 0; double now = now_s();
  served++; tallied_requests++;
  if (first_at == 0) { first_at = now; level_at = now; }
  if (!admit(now)) {
    rejected++; note(now, 429, 0); len = refusal(out); say(fd, out, len); return;
  }
  answered++; len = completion(out, request_len, &tokens); note(now, 200, tokens);
  double delay = median_s > 0 ? median_s * exp(sigma * normal()) : 0;
  if (n_slots) {
    int soonest = 0;
    for (int i = 1; i < n_slots; i++) if (slot_free[i] < slot_free[soonest]) soonest = i;
    slot_free[soonest] = fmax(now, slot_free[soonest]) + delay; delay = slot_free[soonest] - now;
  }
  if (straggler_every && answered % straggler_every == 0) delay = straggler_s;
  if (delay <= 0) { say(fd, out, len); return; }
  char *data = malloc(len); if (!data) abort();
  memcpy(data, out, len); running++; heap_push((Late){now + delay, fd, generations[fd], data, len});
}
static void answer_get(int fd, const char *path) {
  char head[256], *body; size_t len = 0;
  if (!strncmp(path, "/reset", 6)) { books_len = 0; answered = rejected = tallied_requests = 0; first_at = 0; fixed_window = -1; level = burst; }
  int lines = !strncmp(path, "/books", 6);
  body = malloc(128 + (lines ? books_len * 48 : 0)); if (!body) abort();
  if (lines) for (size_t i = 0; i < books_len; i++)
    len += (size_t)sprintf(body + len, "%.6f %d %d\n", books[i].at, books[i].status, books[i].tokens);
  else if (!strncmp(path, "/metrics", 8)) {
    long working = n_slots && running > n_slots ? n_slots : running;
    len = (size_t)sprintf(body, "vllm:num_requests_running %ld\nvllm:num_requests_waiting %ld\n", working, running - working);
  } else len = (size_t)sprintf(body, "%ld %ld\n", answered, rejected);
  int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", len);
  say(fd, head, (size_t)n); if (conns[fd]) say(fd, body, len); free(body);
}

static size_t content_length(const char *head, const char *end) {
  for (const char *p = head; (p = memchr(p, '\n', (size_t)(end - p))) != NULL;) {
    if (!strncasecmp(++p, "content-length:", 15)) return strtoul(p + 15, NULL, 10);
  }
  return 0;
}
static void serve(int fd) { /* answer every whole request that is there */
  Conn *c = conns[fd]; size_t done = 0;
  while (c == conns[fd]) {
    char *head = c->in + done, *end = memmem(head, c->have - done, "\r\n\r\n", 4);
    if (!end) break;
    size_t body = content_length(head, end), size = (size_t)(end + 4 - head) + body;
    if (c->have - done < size) break;
    done += size;
    if (!strncmp(head, "POST", 4)) answer_post(fd, body); else answer_get(fd, head + 4);
  }
  if (c != conns[fd]) return;
  memmove(c->in, c->in + done, c->have - done); c->have -= done;
}
static void readable(int fd) {
  Conn *c = conns[fd];
  for (;;) {
    c->in = grow(c->in, &c->room, c->have + 16384, 1);
    ssize_t n = take(fd, c, c->in + c->have, c->room - c->have);
    if (n > 0) { c->have += (size_t)n; if (c->have < c->room && !c->ssl) break; continue; }
    if (n < 0 && errno == EAGAIN) break;
    drop(fd); return;
  }
  serve(fd);
}

static void pair(const char *text, double *one, double *two) {
  const char *colon = strchr(text, ':'); *one = atof(text); *two = colon ? atof(colon + 1) : 0;
}
int main(int argc, char **argv) {
  int port = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *o = argv[i], *v = argv[i + 1]; double a, b; pair(v, &a, &b);
    if (!strcmp(o, "--port")) port = (int)a;
    else if (!strcmp(o, "--median")) median_s = a / 1e3;
    else if (!strcmp(o, "--sigma")) sigma = a;
    else if (!strcmp(o, "--straggler")) straggler_every = (long)a, straggler_s = b / 1e3;
    else if (!strcmp(o, "--rate")) rate = a;
    else if (!strcmp(o, "--burst")) burst = a;
    else if (!strcmp(o, "--change-at")) change_at = (long)a, change_rate = b;
    else if (!strcmp(o, "--window") && n_windows < MAX_WINDOWS) windows[n_windows++] = (Window){(int)a, b, 0};
    else if (!strcmp(o, "--retry-after")) retry_after = a;
    else if (!strcmp(o, "--length")) length_mean = a, length_sigma = b;
    else if (!strcmp(o, "--random")) random_share = a;
    else if (!strcmp(o, "--fixed")) fixed_n = (int)a, fixed_s = b;
    else if (!strcmp(o, "--slump")) sscanf(v, "%lf:%lf:%lf", &slump_from, &slump_to, &slump_rate);
    else if (!strcmp(o, "--cap")) cap = (int)a;
    else if (!strcmp(o, "--slots")) n_slots = (int)a, slot_free = calloc((size_t)n_slots, sizeof(double));
    else if (!strcmp(o, "--tls")) { if (!load_tls(v)) { fprintf(stderr, "no TLS with %s\n", v); return 2; } }
    else if (!strcmp(o, "--seed")) seed = (uint64_t)a * 2654435761u + 1;
    else { fprintf(stderr, "unknown option %s\n", o); return 2; }
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM); /* ends with whoever started it */
  level = burst; level_at = now_s();
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (bind(listener, (void *)&address, size) || listen(listener, 4096)) { perror("server"); return 1; }
  getsockname(listener, (void *)&address, &size);
  printf("%d\n", ntohs(address.sin_port)); fflush(stdout);
  epoll_fd = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[256];
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int wait = -1;
    if (heap_len) wait = (int)fmax(0, ceil((heap[0].due - now_s()) * 1e3));
    int n = epoll_wait(epoll_fd, events, 256, wait);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int peer;
        while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          if (peer >= MAX_FD) { close(peer); continue; }
          setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          conns[peer] = calloc(1, sizeof(Conn)); if (!conns[peer]) abort();
          begin_tls(peer, conns[peer]);
          e = (struct epoll_event){.events = EPOLLIN, .data.fd = peer};
          epoll_ctl(epoll_fd, EPOLL_CTL_ADD, peer, &e);
        }
        continue;
      }
      if (conns[fd] && events[i].events & EPOLLOUT) {
        e = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e); flush(fd);
      }
      if (conns[fd] && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(fd);
    }
    double now = now_s();
    while (heap_len && heap[0].due <= now) {
      Late late = heap_pop(); running--;
      if (conns[late.fd] && generations[late.fd] == late.generation) say(late.fd, late.data, late.len);
      free(late.data);
    }
  }
}
