#include "store/journal_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/memory.h"

#define FORMAT 1
#define SUFFIX ".snapshot"
enum { NAME_DIGITS = 20, MAGIC_BYTES = 16, HEAD_BYTES = MAGIC_BYTES + SHA256_BYTES, TAIL_BYTES = 16 };

static const char magic[MAGIC_BYTES + 1] = "balm snapshot 1\n";
static const char tail_magic[] = "end\n";

static void path_of(const char *dir, uint64_t seq, char ret_path[JOURNAL_PATH_MAX])
{
    (void)snprintf(ret_path, JOURNAL_PATH_MAX, "%.*s/%020" PRIu64 SUFFIX, JOURNAL_PATH_MAX - 64, dir, seq);
}

static bool parse_name(const char *name, uint64_t *ret_seq)
{
    struct strview s = sv(name);
    if (s.len != NAME_DIGITS + strlen(SUFFIX) || !sv_ends_with(s, SV(SUFFIX))) return false;
    return sv_parse_u64(sv_sub(s, 0, NAME_DIGITS), ret_seq) == STATUS_OK && *ret_seq > 0;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

void snapshot_list(const char *dir, uint64_t **ret_seqs, size_t *ret_n)
{
    uint64_t *seqs = NULL;
    size_t n = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *entry; d != NULL && (entry = readdir(d)) != NULL;) {
        uint64_t seq;
        if (!parse_name(entry->d_name, &seq)) continue;
        seqs = mem_realloc(seqs, (n + 1) * sizeof(*seqs));
        seqs[n++] = seq;
    }
    if (d != NULL) (void)closedir(d);
    if (n > 1) qsort(seqs, n, sizeof(*seqs), newest_first);
    *ret_seqs = seqs;
    *ret_n = n;
}

/* ---- reading ---- */

static uint64_t read_le(const unsigned char *at, size_t n)
{
    uint64_t value = 0;
    for (size_t i = n; i-- > 0;)
        value = value << 8 | at[i];
    return value;
}

static enum status read_footer(struct snapshot *s, const unsigned char *bytes, size_t end)
{
    const unsigned char *tail = bytes + end;
    uint64_t footer = read_le(tail, 8);
    if (memcmp(tail + 12, tail_magic, 4) != 0 || footer < HEAD_BYTES || footer > end) return STATUS_DATA_LOSS;
    if (crc32_z(0, bytes + HEAD_BYTES, end - HEAD_BYTES) != read_le(tail + 8, 4)) return STATUS_DATA_LOSS;
    struct unpack u;
    unpack_init(&u, sv_n((const char *)bytes + footer, end - footer));
    s->seq = unpack_u64(&u);
    size_t n = unpack_count(&u);
    if (n > SNAPSHOT_PARTS_MAX) return STATUS_DATA_LOSS;
    for (size_t i = 0; i < n; i++) {
        struct snapshot_part *part = &s->parts[s->n_parts++];
        part->name = unpack_text(&u);
        part->version = (unsigned)unpack_u64(&u);
        uint64_t offset = unpack_u64(&u), len = unpack_u64(&u);
        if (offset < HEAD_BYTES || offset > footer || len > footer - offset) return STATUS_DATA_LOSS;
        part->bytes = sv_n((const char *)bytes + offset, (size_t)len);
    }
    return unpack_is_good(&u) ? STATUS_OK : STATUS_DATA_LOSS;
}

static enum status map_file(const char *path, struct snapshot *s, struct error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(err, status_from_errno(errno), "open '%s': %s", path, strerror(errno));
    void *map = MAP_FAILED;
    if (fstat(fd, &st) == 0 && st.st_size >= HEAD_BYTES + TAIL_BYTES)
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    if (map == MAP_FAILED) return error_set(err, STATUS_DATA_LOSS, "'%s' is torn or cannot be mapped", path);
    s->map = map;
    s->map_bytes = (size_t)st.st_size;
    return STATUS_OK;
}

enum status snapshot_open(const char *dir, uint64_t seq, struct snapshot **ret_snapshot, struct error *err)
{
    char path[JOURNAL_PATH_MAX];
    struct snapshot *s = mem_zalloc(1, sizeof(*s));
    path_of(dir, seq, path);
    enum status st = map_file(path, s, err);
    const unsigned char *bytes = s->map;
    if (st == STATUS_OK && memcmp(bytes, magic, MAGIC_BYTES) != 0) {
        bool is_newer = memcmp(bytes, magic, MAGIC_BYTES - 2) == 0;
        st = is_newer ? error_set(err, STATUS_FAILED_PRECONDITION, "'%s' was written by a newer balm", path)
                      : error_set(err, STATUS_DATA_LOSS, "'%s' is no snapshot", path);
    }
    if (st == STATUS_OK && (read_footer(s, bytes, s->map_bytes - TAIL_BYTES) != STATUS_OK || s->seq != seq))
        st = error_set(err, STATUS_DATA_LOSS, "'%s' is torn", path);
    if (st != STATUS_OK) {
        snapshot_close(s);
        return st;
    }
    memcpy(s->record_hash, bytes + MAGIC_BYTES, SHA256_BYTES);
    *ret_snapshot = s;
    return STATUS_OK;
}

void snapshot_close(struct snapshot *s)
{
    if (s == NULL) return;
    if (s->map != NULL) (void)munmap(s->map, s->map_bytes);
    free(s);
}

const struct snapshot_part *snapshot_find(const struct snapshot *s, struct strview name)
{
    for (size_t i = 0; i < s->n_parts; i++)
        if (sv_eq(s->parts[i].name, name)) return &s->parts[i];
    return NULL;
}

/* ---- writing ---- */

enum status snapshot_draft_open(const char *dir, struct snapshot_draft *ret_draft, struct error *err)
{
    enum status s = dir_make(dir, 0700, err);
    if (s != STATUS_OK) return s;
    (void)snprintf(ret_draft->path, sizeof(ret_draft->path), "%.*s/snapshot.tmp", JOURNAL_PATH_MAX - 64, dir);
    ret_draft->fd = open(ret_draft->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (ret_draft->fd >= 0) return STATUS_OK;
    return error_set(err, status_from_errno(errno), "open '%s': %s", ret_draft->path, strerror(errno));
}

struct file_sink {
    int fd;
    uLong crc;
};

static bool write_all(int fd, const void *bytes, size_t n)
{
    for (const char *at = bytes; n > 0;) {
        ssize_t written = write(fd, at, n);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return false;
        at += written;
        n -= (size_t)written;
    }
    return true;
}

static bool to_file(void *arg, const void *bytes, size_t n)
{
    struct file_sink *sink = arg;
    sink->crc = crc32_z(sink->crc, bytes, n);
    return write_all(sink->fd, bytes, n);
}

static void put_le(unsigned char *at, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++, value >>= 8)
        at[i] = (unsigned char)value;
}

/* Offsets are those of the file: the head is not part of what is packed. */
static void write_parts(struct pack *p, uint64_t seq, const struct list *followers)
{
    uint64_t offsets[SNAPSHOT_PARTS_MAX + 1], n = 0;
    for (struct list *node = followers->next; node != followers; node = node->next) {
        const struct journal_follower *f = container_of(node, struct journal_follower, node);
        if (f->name == NULL || n == SNAPSHOT_PARTS_MAX) continue;
        offsets[n++] = pack_position(p);
        f->on_save(f, p);
    }
    offsets[n] = pack_position(p);
    pack_u64(p, seq);
    pack_u64(p, n);
    n = 0;
    for (struct list *node = followers->next; node != followers; node = node->next) {
        const struct journal_follower *f = container_of(node, struct journal_follower, node);
        if (f->name == NULL || n == SNAPSHOT_PARTS_MAX) continue;
        pack_text(p, sv(f->name));
        pack_u64(p, f->version);
        pack_u64(p, HEAD_BYTES + offsets[n]);
        pack_u64(p, offsets[n + 1] - offsets[n]);
        n++;
    }
    unsigned char tail[TAIL_BYTES];
    put_le(tail, HEAD_BYTES + offsets[n], 8);
    (void)pack_flush(p);
    put_le(tail + 8, ((const struct file_sink *)p->arg)->crc, 4);
    memcpy(tail + 12, tail_magic, 4);
    pack_bytes(p, tail, sizeof(tail));
}

bool snapshot_draft_write(int fd, uint64_t seq, const struct list *followers)
{
    static const char no_hash[SHA256_BYTES];
    struct file_sink sink = {.fd = fd, .crc = crc32_z(0, NULL, 0)};
    struct pack p;
    if (!write_all(fd, magic, MAGIC_BYTES) || !write_all(fd, no_hash, sizeof(no_hash))) return false;
    pack_init(&p, to_file, &sink);
    write_parts(&p, seq, followers);
    bool is_written = pack_flush(&p);
    pack_release(&p);
    return is_written;
}

void snapshot_remove(const char *dir, uint64_t seq)
{
    char path[JOURNAL_PATH_MAX];
    path_of(dir, seq, path);
    (void)unlink(path);
}

static void remove_old(const char *dir)
{
    uint64_t *seqs = NULL;
    size_t n = 0;
    snapshot_list(dir, &seqs, &n);
    for (size_t i = SNAPSHOTS_KEPT; i < n; i++)
        snapshot_remove(dir, seqs[i]);
    free(seqs);
}

enum status snapshot_draft_finish(struct snapshot_draft *draft, const char *dir, uint64_t seq,
                                  const uint8_t record_hash[SHA256_BYTES], struct error *err)
{
    char path[JOURNAL_PATH_MAX];
    path_of(dir, seq, path);
    bool is_done = pwrite(draft->fd, record_hash, SHA256_BYTES, MAGIC_BYTES) == SHA256_BYTES &&
                   fsync(draft->fd) == 0 && rename(draft->path, path) == 0;
    enum status s = is_done ? file_sync_name(path, err)
                            : error_set(err, STATUS_UNAVAILABLE, "write '%s': %s", path, strerror(errno));
    if (s != STATUS_OK) {
        snapshot_draft_discard(draft);
        return s;
    }
    (void)close(draft->fd);
    remove_old(dir);
    return STATUS_OK;
}

void snapshot_draft_discard(struct snapshot_draft *draft)
{
    (void)close(draft->fd);
    (void)unlink(draft->path);
}
