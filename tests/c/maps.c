// SPDX-License-Identifier: MIT OR Apache-2.0
// shmdt after the program has changed the mapping by other means, and mappings that must not be
// disturbed by it.
#include "check.h"

enum { PAGES = 8 };

// Whether the page is mapped at all.
static int mapped(volatile char *at)
{
    unsigned char in_core;
    return mincore((void *)at, PAGE, &in_core) == 0;
}

static void none_mapped(volatile char *at)
{
    for (int i = 0; i < PAGES; i++)
        CHECK(!mapped(at + i * PAGE));
}

static void after_unmapping(int id, int first, int count)
{
    volatile char *p = attach(id);
    p[0] = 1;
    CHECK(munmap((void *)(p + first * PAGE), (size_t)count * PAGE) == 0);
    if (first == 0 && count == PAGES) {
        FAILS(EINVAL, shmdt((void *)p));
    } else {
        detach(p);
    }
    none_mapped(p);
    FAILS(EINVAL, shmdt((void *)p));
    SAME(nattch(id), 0);
}

static void detach_after_munmap(char **args)
{
    (void)args;
    int id = make(KEY, PAGES * PAGE);
    after_unmapping(id, 0, 1);
    after_unmapping(id, 0, 3);
    after_unmapping(id, 3, 2);
    after_unmapping(id, PAGES - 1, 1);
    after_unmapping(id, 1, PAGES - 1);
    destroy(id);
}

static void detach_after_munmap_of_all(char **args)
{
    (void)args;
    int id = make(KEY, PAGES * PAGE);
    after_unmapping(id, 0, PAGES);
    destroy(id);
}

static void detach_after_mprotect(char **args)
{
    (void)args;
    int id = make(KEY, PAGES * PAGE);
    volatile char *p = attach(id), *other = attach(id);
    CHECK(mprotect((void *)(p + PAGE), PAGE, PROT_READ) == 0);
    CHECK(mprotect((void *)(p + 3 * PAGE), 2 * PAGE, PROT_NONE) == 0);
    CHECK(mprotect((void *)(p + 7 * PAGE), PAGE, PROT_READ) == 0);
    detach(p);
    none_mapped(p);
    other[5 * PAGE] = 1;
    detach(other);
    SAME(nattch(id), 0);
    destroy(id);
}

// A mapping of the program's own in the place of some pages, the first among them or not.
static void with_foreign_at(int id, int first, int count)
{
    volatile char *p = attach(id);
    char *own = mmap((void *)(p + first * PAGE), (size_t)count * PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(own == p + first * PAGE);
    memset(own, 'x', (size_t)count * PAGE);
    detach(p);
    for (int i = 0; i < PAGES; i++)
        SAME(mapped(p + i * PAGE), i >= first && i < first + count);
    for (int i = 0; i < count * PAGE; i++)
        CHECK(own[i] == 'x');
    CHECK(munmap(own, (size_t)count * PAGE) == 0);
    SAME(nattch(id), 0);
}

static void foreign_mappings_survive(char **args)
{
    (void)args;
    int id = make(KEY, PAGES * PAGE);
    with_foreign_at(id, 0, 1);
    with_foreign_at(id, 0, PAGES - 1);
    with_foreign_at(id, 2, 3);
    with_foreign_at(id, PAGES - 1, 1);
    destroy(id);
}

// Another segment in the hole, or another attachment of the same one.
static void other_attachments_survive(char **args)
{
    (void)args;
    int id = make(KEY, PAGES * PAGE), other = make(KEY + 1, PAGE);
    volatile char *p = attach(id);
    CHECK(munmap((void *)(p + 2 * PAGE), PAGE) == 0);
    volatile char *hole = shmat(other, (void *)(p + 2 * PAGE), 0);
    CHECK(hole == p + 2 * PAGE);
    hole[0] = 'o';
    detach(p);
    CHECK(hole[0] == 'o' && mapped(hole) && !mapped(hole + PAGE));
    SAME(nattch(id), 0);
    SAME(nattch(other), 1);
    detach(hole);
    SAME(nattch(other), 0);

    // Two attachments of one segment, side by side.
    volatile char *area = mmap(NULL, 2 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(munmap((void *)area, 2 * PAGES * PAGE) == 0);
    volatile char *left = shmat(id, (void *)area, 0);
    volatile char *right = shmat(id, (void *)(area + PAGES * PAGE), 0);
    CHECK(left == area && right == area + PAGES * PAGE);
    SAME(nattch(id), 2);
    detach(left);
    CHECK(!mapped(left) && mapped(right));
    right[1] = 1;
    SAME(nattch(id), 1);
    detach(right);
    SAME(nattch(id), 0);
    destroy(id);
    destroy(other);
}

static void replaced_by_remap(char **args)
{
    (void)args;
    int id = make(KEY, PAGES * PAGE), other = make(KEY + 1, PAGES * PAGE);
    volatile char *p = attach(id);
    FAILS(EINVAL, (intptr_t)shmat(other, (void *)p, 0));
    CHECK(shmat(other, (void *)p, SHM_REMAP) == (void *)p);
    p[0] = 'n';
    SAME(nattch(id), 0);
    SAME(nattch(other), 1);
    detach(p);
    none_mapped(p);
    SAME(nattch(other), 0);
    // Over memory of the program's own.
    char *own = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(shmat(other, own, SHM_REMAP) == (void *)own);
    CHECK(own[0] == 'n');
    detach(own);
    none_mapped(own);
    destroy(id);
    destroy(other);
}

// Counts what is attached from the inside: /proc/self/maps has no pages of ours in the end.
static void nothing_is_left_mapped(char **args)
{
    (void)args;
    for (int round = 0; round < 2; round++) {
        int lines[2] = {0, 0};
        for (int pass = 0; pass < 2; pass++) {
            FILE *maps = fopen("/proc/self/maps", "re");
            CHECK(maps != NULL);
            char line[512];
            while (fgets(line, sizeof line, maps) != NULL)
                lines[pass] += strstr(line, "rw-s") != NULL;
            fclose(maps);
            for (int i = 0; pass == 0 && i < 200; i++) {
                int id = make(KEY, PAGES * PAGE);
                volatile char *p = attach(id), *q = attach(id);
                detach(q);
                destroy(id);
                p[0] = 1;
                detach(p);
            }
        }
        // In the first round a library may map what it keeps.
        if (round == 1)
            SAME(lines[1], lines[0]);
    }
}

SCENARIOS({"detach_after_munmap", detach_after_munmap},
          {"detach_after_munmap_of_all", detach_after_munmap_of_all},
          {"detach_after_mprotect", detach_after_mprotect},
          {"foreign_mappings_survive", foreign_mappings_survive},
          {"other_attachments_survive", other_attachments_survive},
          {"replaced_by_remap", replaced_by_remap},
          {"nothing_is_left_mapped", nothing_is_left_mapped})
