/* A disk that fails on command: fsync, fdatasync and pwrite of this program and of the libraries it uses.
 * Defined in the program, so they come before the C library's; SQLite calls exactly these. */
#ifndef BALM_TESTS_CONTRACT_DISK_FAULTS_H
#define BALM_TESTS_CONTRACT_DISK_FAULTS_H

/* SYNC: of files and folders; FOLDER: of folders alone. */
enum disk_fault { DISK_FAULT_SYNC = 1, DISK_FAULT_WRITE = 2, DISK_FAULT_FOLDER = 4 };

/* After `after` more calls of the kinds in `which`, the next `times` fail with errnum (0: all until
 * disk_faults_clear). */
void disk_faults_set(unsigned which, int errnum, unsigned after, unsigned times);
void disk_faults_clear(void);
/* Calls that failed since the last set. */
unsigned disk_faults_hits(void);

#endif
