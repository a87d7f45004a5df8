/* Wherever the power is cut, every record that was acknowledged is there, and the journal opens: on a disk
 * whose syncs and writes fail at random. BALM_SEED repeats the choices of one run (not its timing).
 *
 *   this program and SQLite --write, sync, unlink--> hooks below --> the real folder
 *                                                      |
 *                                                      v at a sync that succeeds
 *                                      shadow: what the disk holds    --power cut--> another folder: opened,
 *                                                                                    read, compared
 *
 * The shadow is the worst disk that POSIX allows: bytes and lengths are there after a sync of the file, names
 * after a sync of the folder, nothing sooner; after a sync that failed the pages count as clean and never get
 * there, which is what Linux does. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "loop/loop.h"
#include "store/journal_impl.h"

enum { WRITERS = 8, FILES_MAX = 4096, NAMES_MAX = 256, SEGMENT_BYTES = 300 * 1024, RUN_MS = 5000 };

struct range {
    off_t from, to;
};

struct shadow_file {
    ino_t inode; /* 0: unlinked, its inode may be another file's by now */
    char *bytes; /* as the disk has them */
    size_t len, capacity;
    struct range *dirty; /* written since the last sync */
    size_t n_dirty, dirty_capacity;
};

struct shadow_name {
    char name[256];
    size_t file;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char dir[1024], cut_dir[1100];
static bool is_watching;
static struct random_seeded rng;                          /* under lock, as all below */
static unsigned sync_faults, folder_faults, write_faults; /* of 1000 */
static unsigned n_faults;
static struct shadow_file files[FILES_MAX];
static struct shadow_name names[NAMES_MAX];
static size_t n_files, n_names;

/* ---- the shadow; with the lock ---- */

/* The index behind -shm is made anew, and the leases are no part of the journal. */
static bool is_kept(const char *path)
{
    return strstr(path, "-shm") == NULL && strstr(path, "leases") == NULL;
}

static bool is_ours(int fd, struct stat *ret_stat)
{
    char link[64], path[2048];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path) - 1);
    if (!is_watching || len < 0) return false;
    path[len] = '\0';
    return strncmp(path, dir, strlen(dir)) == 0 && path[strlen(dir)] != '.' && is_kept(path) &&
           fstat(fd, ret_stat) == 0;
}

static bool fails(unsigned faults)
{
    if (random_seeded_below(&rng, 1000) >= faults) return false;
    n_faults++;
    return true;
}

static size_t file_of(ino_t inode)
{
    for (size_t i = 0; i < n_files; i++)
        if (files[i].inode == inode) return i;
    if (n_files == FILES_MAX) abort();
    files[n_files].inode = inode;
    return n_files++;
}

static void note_dirty(ino_t inode, off_t from, off_t to)
{
    struct shadow_file *f = &files[file_of(inode)];
    if (f->n_dirty == f->dirty_capacity) {
        f->dirty_capacity = f->dirty_capacity > 0 ? f->dirty_capacity * 2 : 64;
        f->dirty = mem_realloc(f->dirty, f->dirty_capacity * sizeof(*f->dirty));
    }
    f->dirty[f->n_dirty++] = (struct range){from, to};
}

static void sync_file(int fd, struct shadow_file *f, size_t size)
{
    if (size > f->capacity) {
        f->capacity = size * 2;
        f->bytes = mem_realloc(f->bytes, f->capacity);
    }
    if (size > f->len) memset(f->bytes + f->len, 0, size - f->len);
    f->len = size;
    for (size_t i = 0; i < f->n_dirty; i++) {
        off_t to = f->dirty[i].to < (off_t)size ? f->dirty[i].to : (off_t)size;
        for (off_t at = f->dirty[i].from; at < to;) {
            ssize_t got = pread(fd, f->bytes + at, (size_t)(to - at), at);
            if (got <= 0) abort();
            at += got;
        }
    }
    f->n_dirty = 0;
}

static void sync_folder(void)
{
    DIR *d = opendir(dir);
    if (d == NULL) abort();
    n_names = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || !is_kept(e->d_name)) continue;
        if (n_names == NAMES_MAX) abort();
        (void)snprintf(names[n_names].name, sizeof(names[0].name), "%s", e->d_name);
        names[n_names++].file = file_of(e->d_ino);
    }
    (void)closedir(d);
}

/* ---- hooks: these names come before the C library's ---- */

static int on_sync(int fd, long number)
{
    struct stat st;
    bool has_failed = false;
    (void)pthread_mutex_lock(&lock);
    if (is_ours(fd, &st)) {
        bool is_folder = S_ISDIR(st.st_mode);
        has_failed = fails(is_folder ? folder_faults : sync_faults);
        if (has_failed && !is_folder)
            files[file_of(st.st_ino)].n_dirty = 0;
        else if (!has_failed && is_folder)
            sync_folder();
        else if (!has_failed)
            sync_file(fd, &files[file_of(st.st_ino)], (size_t)st.st_size);
        (void)pthread_mutex_unlock(&lock);
        errno = EIO;
        return has_failed ? -1 : 0; /* the real disk need not hold it */
    }
    (void)pthread_mutex_unlock(&lock);
    return (int)syscall(number, fd);
}

/* To be written, unless false: then the disk is full. */
static bool on_write(int fd, off_t from, off_t to)
{
    struct stat st;
    bool has_failed = false;
    (void)pthread_mutex_lock(&lock);
    if (is_ours(fd, &st)) {
        has_failed = fails(write_faults);
        if (!has_failed) note_dirty(st.st_ino, from, to);
    }
    (void)pthread_mutex_unlock(&lock);
    errno = ENOSPC;
    return !has_failed;
}

int fsync(int fd)
{
    return on_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return on_sync(fd, SYS_fdatasync);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return on_write(fd, offset, offset + (off_t)n) ? (ssize_t)syscall(SYS_pwrite64, fd, buf, n, offset) : -1;
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    return on_write(fd, offset, offset + (off_t)n) ? (ssize_t)syscall(SYS_pwrite64, fd, buf, n, offset) : -1;
}

/* What is cut off and grows back is zeros. */
static void on_truncate(int fd, off_t size)
{
    struct stat st;
    (void)pthread_mutex_lock(&lock);
    if (is_ours(fd, &st) && st.st_size > size) note_dirty(st.st_ino, size, st.st_size);
    (void)pthread_mutex_unlock(&lock);
}

int ftruncate(int fd, off_t size)
{
    on_truncate(fd, size);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    on_truncate(fd, size);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int unlink(const char *path)
{
    struct stat st;
    (void)pthread_mutex_lock(&lock);
    bool is_ours_too =
        is_watching && strncmp(path, dir, strlen(dir)) == 0 && is_kept(path) && stat(path, &st) == 0;
    int rc = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (rc == 0 && is_ours_too) files[file_of(st.st_ino)].inode = 0;
    (void)pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- the power cut ---- */

static void empty_folder(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) return;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') (void)unlinkat(dirfd(d), e->d_name, 0);
    (void)closedir(d);
}

static void write_disk(void)
{
    empty_folder(cut_dir);
    int folder = open(cut_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < n_names; i++) {
        const struct shadow_file *f = &files[names[i].file];
        int fd = openat(folder, names[i].name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        cr_assert(fd >= 0 && (f->len == 0 || write(fd, f->bytes, f->len) == (ssize_t)f->len), "%s",
                  names[i].name);
        (void)close(fd);
    }
    (void)close(folder);
}

/* ---- the journal on it ---- */

struct acknowledged {
    uint64_t seq, id;
};

static struct journal *journal;
static struct acknowledged *acks;
static size_t n_acks, acks_capacity;
static uint64_t next_id;
static unsigned n_refused, n_cuts;
static bool is_over;

static uint64_t id_of(const struct record *r)
{
    uint64_t id = 0;
    return sv_starts_with(r->message, SV("id-")) &&
                   sv_parse_u64(sv_sub(r->message, 3, r->message.len), &id) == STATUS_OK
               ? id
               : 0;
}

/* ids[seq] of what is in cut_dir, which ends at `last`. */
static uint64_t *read_ids(uint64_t last)
{
    struct error err;
    struct arena a = {0};
    struct journal_reader *reader = NULL;
    uint64_t *ids = mem_zalloc(last + 1, sizeof(*ids));
    cr_assert_eq(journal_reader_open(cut_dir, &reader, &err), STATUS_OK, "%s", err.message);
    for (uint64_t seq = 1; seq <= last; arena_reset(&a)) {
        struct journal_entry *entries = NULL;
        size_t n = 0;
        enum status s = journal_reader_read(reader, seq, 1000, true, &a, &entries, &n, &err);
        cr_assert(s == STATUS_OK && n > 0, "%s", err.message);
        for (size_t i = 0; i < n; i++)
            ids[entries[i].seq] = id_of(entries[i].record);
        seq = entries[n - 1].seq + 1;
    }
    journal_reader_close(reader);
    arena_release(&a);
    return ids;
}

static void cut_the_power(void)
{
    struct error err;
    uint64_t first = 0, last = 0;
    (void)pthread_mutex_lock(&lock);
    write_disk();
    size_t n = n_acks;
    (void)pthread_mutex_unlock(&lock);
    n_cuts++;
    cr_assert_eq(journal_segment_check(cut_dir, &first, &last, &err), STATUS_OK, "%s", err.message);
    cr_assert_geq(last, journal_durable_seq(journal), "cut %u", n_cuts);
    uint64_t *ids = read_ids(last);
    for (size_t i = 0; i < n; i++)
        cr_assert(acks[i].seq <= last && ids[acks[i].seq] == acks[i].id,
                  "cut %u: record %" PRIu64 " was acknowledged, the disk ends at %" PRIu64, n_cuts,
                  acks[i].seq, last);
    free(ids);
}

static void acknowledge(uint64_t seq, uint64_t id)
{
    if (n_acks == acks_capacity) {
        acks_capacity = acks_capacity > 0 ? acks_capacity * 2 : 1024;
        acks = mem_realloc(acks, acks_capacity * sizeof(*acks));
    }
    acks[n_acks++] = (struct acknowledged){seq, id};
}

static void writer_fiber(void *arg)
{
    (void)arg;
    static const char padding[2000] = {' '};
    while (!is_over) {
        char text[32];
        struct error err;
        uint64_t id = ++next_id, seq = 0;
        (void)snprintf(text, sizeof(text), "id-%" PRIu64, id);
        struct record r = {.kind = RECORD_NOTE,
                           .time_ns = clock_unix_ns(),
                           .message = sv(text),
                           .reason = sv_n(padding, (size_t)(id * 7919 % sizeof(padding)))};
        enum status s = journal_append(journal, &r, 1, &seq, &err);
        if (s == STATUS_OK) s = journal_wait_durable(journal, seq, 0, &err);
        if (s == STATUS_OK)
            acknowledge(seq, id);
        else if (++n_refused > 0 && sleep_ms(5) != STATUS_OK)
            return;
    }
}

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    (void)f, (void)e;
}

/* Here the store has just said what it holds. */
static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)f, (void)durable_seq;
    cut_the_power();
}

static void run(void *arg)
{
    const unsigned *faults = arg;
    struct error err;
    struct fiber_scope scope;
    struct journal_follower follower = {.on_record = on_record, .on_reset = on_reset};
    struct journal_cfg cfg = {.dir = dir, .segment_max_bytes = SEGMENT_BYTES};
    cr_assert_eq(journal_open_sqlite(loop_current(), &cfg, &journal, &err), STATUS_OK, "%s", err.message);
    journal_follow(journal, &follower);
    cr_assert_eq(journal_fold(journal, &err), STATUS_OK, "%s", err.message);
    fiber_scope_init(&scope);
    (void)pthread_mutex_lock(&lock);
    sync_faults = faults[0], folder_faults = faults[1], write_faults = faults[2];
    (void)pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < WRITERS; i++)
        cr_assert_eq(fiber_scope_spawn(&scope, writer_fiber, NULL, &err), STATUS_OK);
    for (int64_t end_ns = clock_monotonic_ns() + RUN_MS * NS_PER_MS; clock_monotonic_ns() < end_ns;) {
        cr_assert_eq(sleep_ms(50), STATUS_OK);
        cut_the_power();
    }
    is_over = true;
    fiber_scope_join(&scope);
    (void)pthread_mutex_lock(&lock);
    sync_faults = folder_faults = write_faults = 0;
    (void)pthread_mutex_unlock(&lock);
    journal_unfollow(journal, &follower);
    journal_close(journal);
}

static void run_with(const unsigned faults[3])
{
    struct loop *loop = NULL;
    struct error err;
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, run, (void *)faults, &err), STATUS_OK);
    loop_free(loop);
    fprintf(stderr, "%zu acknowledged, %u refused, %u faults, %u power cuts\n", n_acks, n_refused, n_faults,
            n_cuts);
    cr_assert(n_acks > 0 && n_faults > 0, "something happened");
}

static void set_up(void)
{
    const char *text = getenv("BALM_SEED"), *tmp = getenv("TMPDIR");
    if (text == NULL || sv_parse_u64(sv(text), &rng.state) != STATUS_OK) rng.state = 20261128;
    fprintf(stderr, "BALM_SEED=%" PRIu64 "\n", rng.state);
    (void)snprintf(dir, sizeof(dir), "%s/balm-power-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(cut_dir, sizeof(cut_dir), "%s.cut", dir);
    cr_assert_eq(mkdir(cut_dir, 0700), 0);
    is_watching = true;
}

static void tear_down(void)
{
    is_watching = false;
    empty_folder(cut_dir);
    empty_folder(dir);
    (void)rmdir(cut_dir);
    (void)rmdir(dir);
    for (size_t i = 0; i < n_files; i++) {
        free(files[i].bytes);
        free(files[i].dirty);
    }
    free(acks);
}

TestSuite(power_cut, .init = set_up, .fini = tear_down);

Test(power_cut, loses_no_acknowledged_record_where_syncs_and_writes_fail)
{
    run_with((const unsigned[]){50, 50, 5});
}

/* SQLite makes the names of WAL files and takes no notice if they did not get to the disk. */
Test(power_cut, loses_no_acknowledged_record_where_names_get_lost)
{
    run_with((const unsigned[]){0, 300, 0});
}
