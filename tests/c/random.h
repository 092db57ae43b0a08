// SPDX-License-Identifier: MIT OR Apache-2.0
// Numbers at random, the same ones for the same seed.
#ifndef RANDOM_H
#define RANDOM_H
#include <stdlib.h>

static unsigned long long state;

static inline unsigned below(unsigned limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 11) % limit;
}

static inline void seed(const char *text)
{
    state = strtoull(text, NULL, 0) * 0x9e3779b97f4a7c15ULL + 1;
    for (int n = 0; n < 8; n++)
        below(2);
}
#endif
