/* fprocess as anybody who may deploy writes it: cut within its bounds, and put together again with every byte
 * escaped it is cut the same.
 *
 * Reads: config/words.c */
#include "config/words.h"

#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "replay.h"

static void check_again(const char *const *words, size_t n)
{
    struct arena a = {0};
    struct buf text;
    const char *const *again;
    size_t n_again = 0;
    buf_init(&text, (size_t)4 * WORDS_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        buf_append(&text, i > 0 ? SV(" ''") : SV("''"));
        for (const char *c = words[i]; *c != '\0'; c++) {
            buf_append_char(&text, '\\');
            buf_append_char(&text, *c);
        }
    }
    struct error err = {0};
    if (words_split(buf_view(&text), &a, &again, &n_again, &err) == STATUS_OK) {
        assert(n == n_again);
        for (size_t i = 0; i < n; i++)
            assert(strcmp(words[i], again[i]) == 0);
    } else {
        assert(text.len > WORDS_BYTES_MAX);
    }
    arena_release(&a);
    buf_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena a = {0};
    const char *const *words;
    size_t n_words = 0, len = 0;
    struct error err = {0};
    if (words_split(sv_n((const char *)bytes, n), &a, &words, &n_words, &err) == STATUS_OK) {
        assert(n_words > 0 && n_words <= WORDS_MAX && words[n_words] == NULL && words[0][0] != '\0');
        for (size_t i = 0; i < n_words; i++)
            len += strlen(words[i]);
        assert(len <= n);
        check_again(words, n_words);
    } else {
        assert(err.code == STATUS_INVALID_ARGUMENT);
    }
    arena_release(&a);
    return 0;
}
