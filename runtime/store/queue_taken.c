/* What is in a file of marks, and when it is believed (queue_impl.h).
 *
 *   head    whose it is: boot, the file's own inode (a copy of the folder says nothing), the epoch of the
 *           process that wrote it (a version that knows nothing of marks may have run since), from_seq
 *   slots   `changed_seq` of an item when it was handed out, and how far the journal was on disk then
 *
 * A mark is void once a later record about its item is there, so none is ever taken back; its slot is used
 * again when that record is on disk. A journal that ends before what any slot has seen of it was put back to
 * an earlier state: what is missing may have been the end of anything, so the file is not believed. */
#include "store/queue_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "log/log.h"

static const char magic[8] = {'b', 'a', 'l', 'm', 't', 'k', '1', '\n'};

/* As it lies in the file: read on the machine and in the boot in which it was written. */
struct head {
    char magic[sizeof(magic)], boot_id[CLOCK_BOOT_ID_MAX + 4];
    uint64_t device, inode, epoch, from_seq;
};

struct slot {
    uint64_t changed_seq, durable_seq; /* 0: never used */
};

struct file {
    struct head head;
    struct slot slots[TAKEN_SLOTS];
};

/* False: nobody could tell later whether the file says anything. */
static bool make_head(const struct taken *t, int fd, uint64_t epoch, struct head *ret_head)
{
    struct stat st;
    char boot_id[CLOCK_BOOT_ID_MAX + 1];
    *ret_head = (struct head){.epoch = epoch, .from_seq = t->from_seq};
    memcpy(ret_head->magic, magic, sizeof(magic));
    clock_boot_id(boot_id);
    memcpy(ret_head->boot_id, boot_id, strlen(boot_id));
    if (boot_id[0] == '\0' || fstat(fd, &st) != 0) return false;
    ret_head->device = st.st_dev;
    ret_head->inode = st.st_ino;
    return true;
}

static bool write_head(struct taken *t, uint64_t epoch)
{
    struct head h;
    if (!make_head(t, t->fd, epoch, &h) || pwrite(t->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
        return false;
    t->epoch = epoch;
    return true;
}

/* ---- the life before ---- */

static bool is_believed(struct taken *t, int fd, const struct file *f, uint64_t past_seq, uint64_t past_epoch)
{
    struct head expected;
    t->from_seq = f->head.from_seq;
    if (!make_head(t, fd, past_epoch, &expected) || memcmp(&expected, &f->head, sizeof(expected)) != 0)
        return false;
    for (size_t i = 0; i < TAKEN_SLOTS; i++)
        if (f->slots[i].durable_seq > past_seq) return false;
    return f->head.from_seq <= past_seq;
}

static int compare_marks(const void *a, const void *b)
{
    const struct taken_mark *x = a, *y = b;
    return (x->changed_seq > y->changed_seq) - (x->changed_seq < y->changed_seq);
}

static void load_marks(struct taken *t, const struct file *f)
{
    for (unsigned i = 0; i < TAKEN_SLOTS; i++)
        if (f->slots[i].changed_seq != 0)
            t->marks[t->n_marks++] = (struct taken_mark){f->slots[i].changed_seq, i};
    qsort(t->marks, t->n_marks, sizeof(t->marks[0]), compare_marks);
}

static bool open_old(struct taken *t, uint64_t past_seq, uint64_t past_epoch)
{
    struct file f;
    int fd = open(t->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    if (pread(fd, &f, sizeof(f), 0) != (ssize_t)sizeof(f) || !is_believed(t, fd, &f, past_seq, past_epoch)) {
        (void)close(fd);
        return false;
    }
    t->fd = fd;
    load_marks(t, &f);
    return true;
}

/* Whole before it has the name: a kill in between leaves what was there, which nobody believes any more. */
static bool make_new(struct taken *t, uint64_t past_seq, uint64_t epoch)
{
    const struct file empty = {.slots = {{0}}};
    char fresh[TAKEN_PATH_MAX + sizeof(".new")];
    (void)snprintf(fresh, sizeof(fresh), "%s.new", t->path);
    t->from_seq = past_seq;
    t->fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (t->fd < 0) return false;
    return pwrite(t->fd, &empty, sizeof(empty), 0) == (ssize_t)sizeof(empty) && write_head(t, epoch) &&
           rename(fresh, t->path) == 0;
}

/* ---- no marks ---- */

static void stop_marking(struct taken *t)
{
    log_warn("queue", "what is handed out is not noted: after a kill all that is due counts as begun",
             LOG_STR("file", t->path), LOG_STR("error", strerror(errno)));
    if (t->fd >= 0) (void)close(t->fd);
    t->fd = -1;
}

/* What the file says is no longer all, so it must go. */
static enum status give_up(struct taken *t, struct error *err)
{
    if (t->fd >= 0) stop_marking(t);
    t->is_in_the_way = unlink(t->path) != 0 && errno != ENOENT;
    if (!t->is_in_the_way) return STATUS_OK;
    return error_set(err, STATUS_UNAVAILABLE, "remove %s: %s", t->path, strerror(errno));
}

/* ---- the calls ---- */

void taken_init(struct taken *t, const char *path)
{
    *t = (struct taken){.fd = -1, .from_seq = UINT64_MAX};
    if (path != NULL) (void)snprintf(t->path, sizeof(t->path), "%s", path);
}

void taken_release(struct taken *t)
{
    if (t->fd >= 0) (void)close(t->fd);
    t->fd = -1;
}

void taken_start(struct taken *t, uint64_t past_seq, uint64_t past_epoch, uint64_t epoch)
{
    if (t->path[0] == '\0' || t->is_started) return;
    t->is_started = true;
    if (open_old(t, past_seq, past_epoch) ? write_head(t, epoch) : make_new(t, past_seq, epoch)) return;
    stop_marking(t); /* the file, if any, is of another epoch */
}

static const struct taken_mark *find(const struct taken *t, uint64_t changed_seq)
{
    return bsearch(&(struct taken_mark){.changed_seq = changed_seq}, t->marks, t->n_marks,
                   sizeof(t->marks[0]), compare_marks);
}

bool taken_knows(const struct taken *t, uint64_t changed_seq)
{
    return t->is_started && changed_seq > t->from_seq;
}

bool taken_keep(struct taken *t, uint64_t changed_seq)
{
    const struct taken_mark *m = find(t, changed_seq);
    if (m != NULL) t->is_used[m->slot] = true;
    return m != NULL;
}

void taken_forget(struct taken *t, uint64_t changed_seq)
{
    const struct taken_mark *m = find(t, changed_seq);
    if (m != NULL) t->is_used[m->slot] = false;
}

enum status taken_note(struct taken *t, uint64_t changed_seq, uint64_t durable_seq, uint64_t epoch,
                       unsigned *ret_slot, struct error *err)
{
    const struct slot slot = {changed_seq, durable_seq};
    unsigned i = 0;
    *ret_slot = TAKEN_NO_SLOT;
    if (t->fd < 0) return t->is_in_the_way ? give_up(t, err) : STATUS_OK;
    while (i < TAKEN_SLOTS && t->is_used[i])
        i++;
    errno = ENOSPC;
    if (i == TAKEN_SLOTS || (t->epoch != epoch && !write_head(t, epoch)) ||
        pwrite(t->fd, &slot, sizeof(slot), (off_t)(offsetof(struct file, slots) + i * sizeof(slot))) !=
            (ssize_t)sizeof(slot))
        return give_up(t, err);
    t->is_used[i] = true;
    *ret_slot = i;
    return STATUS_OK;
}

void taken_free(struct taken *t, unsigned slot)
{
    if (slot != TAKEN_NO_SLOT) t->is_used[slot] = false;
}
