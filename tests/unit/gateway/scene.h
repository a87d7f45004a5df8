/* A gateway on a data folder of its own, with functions that are this very binary under other names, driven
 * by a script in a fiber. */
#ifndef BALM_TESTS_GATEWAY_SCENE_H
#define BALM_TESTS_GATEWAY_SCENE_H

#include "base/clock.h"
#include "gateway/gateway_impl.h"

struct scene {
    struct loop *loop;
    struct arena arena;
    char folder[256];       /* data/, functions/, stack.yml, host-acts.yaml */
    struct gateway_cfg cfg; /* a test may change it before the script, see `prepare` */
    struct journal *journal;
    struct gateway *gateway;
    struct upstream *door; /* to the gateway's port */
    struct strview login;  /* "Basic …" */
    struct error err;
};

typedef void scene_fn(struct scene *s);

/* Folder and functions; prepare(s) (may be NULL) writes more; then gateway, script and their end. loop_free()
 * fails on anything left open. */
void play(scene_fn *prepare, scene_fn *script);
/* The same without a gateway: script runs in a fiber on a loop. */
void play_without_gateway(scene_fn *script);
/* Within a script: the gateway is stopped, respectively started (again). */
enum status scene_start(struct scene *s);
void scene_stop(struct scene *s);

/* FOLDER/NAME, with the modes given. Returns its path (arena). */
const char *scene_write(struct scene *s, const char *name, const char *text, unsigned mode);
const char *scene_path(struct scene *s, const char *name);
bool scene_has(struct scene *s, const char *name);
/* FOLDER/functions/NAME: a shell script. */
void scene_script(struct scene *s, const char *name, const char *body);
/* stack.yml with one function of that name and further lines of its entry. */
const char *stack_of(struct scene *s, const char *name, const char *more);
enum status deploy_named(struct scene *s, const char *name, const char *more);

struct answer {
    enum status status;
    int code;
    struct strview body;
    const struct http_header *headers;
    size_t n_headers;
};
/* One request at the gateway's port. body NULL: none; a body is JSON. With the login where the path begins
 * with /system/. */
struct answer ask(struct scene *s, const char *method, const char *path, const char *body);
struct answer ask_with(struct scene *s, const char *method, const char *path, const char *body,
                       const struct http_header *headers, size_t n);
struct strview answer_header(const struct answer *a, const char *name);
json_t *answer_json(const struct answer *a); /* fails the test if it is none; to be released */

/* Waits (≤ 10 s) for condition(arg). */
bool await(bool (*condition)(void *arg), void *arg);
struct deployment *deployment_of(struct scene *s, const char *name);
/* Number of descriptors of this process. */
unsigned open_descriptors(void);
/* Is there such a process (not a zombie)? */
bool is_alive(pid_t pid);
pid_t read_pid(const char *path);

/* AddressSanitizer reserves terabytes: its functions do not start under a limit of memory. */
#ifdef __SANITIZE_ADDRESS__
#define MEMORY_LIMIT 0
#define MEMORY_TEXT  "0"
#else
#define MEMORY_LIMIT (INT64_C(1) << 33)
#define MEMORY_TEXT  "512Mi"
#endif

/* The build's shim, beside the folder of this binary. */
const char *shim_path(struct arena *a);

/* Fails the test with the place. In fibers Criterion's own assertions would jump over the loop. */
#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition, NULL))
#define CHECK_OK(s, call)                                                                                    \
    (((call) == STATUS_OK) ? (void)0 : check_failed(__FILE__, __LINE__, #call, (s)->err.message))
_Noreturn void check_failed(const char *file, int line, const char *what, const char *why);

#endif
