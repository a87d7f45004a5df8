/* Included last by each fuzz target. With -DFUZZ_MAIN a plain main() under any compiler feeds the target
 * the files and folders named as arguments (a folder's files, not deeper) and says how many; without it
 * libFuzzer brings the main. Each input is a heap block of its exact size, so that ASan sees a read past
 * the end. */
#ifndef BALM_TESTS_FUZZ_REPLAY_H
#define BALM_TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#ifdef FUZZ_MAIN
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static unsigned replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (f == NULL || fstat(fileno(f), &st) != 0) {
        perror(path);
        exit(1);
    }
    size_t n = (size_t)st.st_size;
    uint8_t *bytes = malloc(n ? n : 1);
    if (bytes == NULL || fread(bytes, 1, n, f) != n) {
        perror(path);
        exit(1);
    }
    (void)fclose(f);
    (void)LLVMFuzzerTestOneInput(bytes, n);
    free(bytes);
    return 1;
}

static unsigned replay(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) return replay_file(path);
    unsigned n = 0;
    char name[4096];
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        n += replay_file(name);
    }
    (void)closedir(folder);
    return n;
}

int main(int argc, char **argv)
{
    unsigned n = 0;
    for (int i = 1; i < argc; i++)
        n += replay(argv[i]);
    (void)printf("%s: %u inputs replayed\n", argv[0], n);
    return n > 0 ? 0 : 1;
}
#endif
#endif
