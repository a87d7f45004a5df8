/* Functions built here, for `faas-cli up --remote-builder URL --payload-secret FILE` on a machine without
 * containers (contracts/openfaas.md §4.6). Off unless the platform is given the file of a payload secret.
 *
 *   POST /build   archive, signed with the secret by HMAC-SHA256
 *      -> unpacked in a folder of its own, and refused if anything in it is no plain file or folder
 *      -> a template with a Makefile (c-balm): `make`, and `make test` where there is one; OUT/NAME is taken
 *         another one whose template.yml has an fprocess: the folder itself is taken
 *      -> functions_dir/NAME, in one step, NAME being the last part of the image's name
 *
 * What a Makefile does is up to whoever has the secret: it runs in the shim's sandbox (isolation.h: the
 * system to read, its own folder to write, as root a user of its own; limits of memory; it dies with us),
 * with an environment of its own, for BUILD_TIMEOUT_NS at most. One build at a time. What was not built here
 * is not replaced: DIR/built/NAME marks what was. A build that is cut, by kill -9 as well, leaves the image
 * as it was; its folder goes at the next start. */
#ifndef BALM_GATEWAY_BUILDER_H
#define BALM_GATEWAY_BUILDER_H

#include "gateway/gateway_impl.h"

#define BUILD_TIMEOUT_NS    (10 * 60 * NS_PER_S)
#define BUILD_MEMORY_BYTES  (INT64_C(2) << 30) /* of each process, and where groups can be made of all */
#define BUILD_RESULT_MAX    (64 << 20)         /* an executable */
#define BUILD_FILE_MAX      (256 << 20)        /* any other that it makes */
#define BUILD_PROCESSES_MAX 256                /* as root: at once */
#define BUILD_LOG_MAX       (1 << 20)          /* what a build may say; the rest is not passed on */
#define BUILDS_WAITING_MAX  8
#define BUILD_TEMPORARY     ".balm-build~" /* in the folder of functions; no image's name begins with '.' */
#define BUILD_UID           64998          /* as root: nobody's, and no function's */
#define BUILDER_SECRET_MIN  16             /* characters: it lets somebody run programs here */
#define BUILDER_SECRET_MAX  4096

struct builder {
    struct gateway *gateway;
    struct strview secret; /* owned, wiped */
    char *folder;          /* owned; TMPDIR/balm-build-…, in which each build has its own */
    unsigned serial, n_waiting;
    bool is_building;
    struct fiber_event ended;
};

/* Reads the secret (its file must be ours or root's, and is made 0600) and removes what an earlier platform
 * left. *ret_builder is NULL without a secret_file. */
enum status builder_new(struct gateway *g, const char *secret_file, struct builder **ret_builder,
                        struct error *err) MUST_USE;
/* NULL does nothing. No build is left. */
void builder_free(struct builder *b);

/* One build: what was asked for, and where it is made. Lives in the exchange's arena. */
struct build {
    struct builder *builder;
    struct arena *arena;
    struct strview archive; /* borrowed from the request */
    struct strview image;   /* as it was sent; what follows of it: */
    const char *name;
    const char *folder;  /* builder's folder/N */
    const char *context; /* folder/context */
    const char *made;    /* the executable that make makes; NULL: the context is what is wanted */
    bool has_test;
};

/* builder_files.c, on worker threads; where the archive or what was made is at fault:
 * STATUS_INVALID_ARGUMENT. */

/* Reads the archive, finds out what is wanted, unpacks it. */
enum status build_unpack(struct build *b, struct error *err) MUST_USE;
/* What was made gets its name; on the disk when it returns. */
enum status build_install(struct build *b, struct error *err) MUST_USE;
void build_remove(struct build *b);
/* Whatever there is below and at `path`. */
void builder_remove_tree(const char *path);

/* builder_make.c */

/* Lines of a build, as they come; none: is anybody there? STATUS_CANCELLED: nobody listens any more, the
 * build is to end. */
typedef enum status build_log_fn(void *arg, const struct strview *lines, size_t n);
/* Runs make (and its tests) until it has ended. Suspends. */
enum status build_make(struct build *b, build_log_fn *log, void *arg, struct error *err) MUST_USE;

/* routes_build.c: POST /build. */
void routes_build(struct gateway *g, const struct http_req *req, struct http_resp *resp);

#endif
