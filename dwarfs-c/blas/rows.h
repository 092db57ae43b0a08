// SPDX-License-Identifier: MIT OR Apache-2.0
/* The product of some rows (blas.h), of REALs, as MULTIPLY_ROWS: `count` rows of A and C, one after
 * the other, with all of B; at level 1 as many elements of a and b, and their sum in c. Not
 * inlined, or the compiler sees that all iterations of a serial program give the same. */

#if LEVEL == 1
__attribute__((noipa)) static void MULTIPLY_ROWS(const REAL *a, const REAL *b, REAL *c, size_t n,
						  size_t count)
{
	REAL sum = 0;

	(void)n;
	for (size_t i = 0; i < count; i++)
		sum += a[i] * b[i];
	*c = sum;
}
#elif LEVEL == 2
__attribute__((noipa)) static void MULTIPLY_ROWS(const REAL *a, const REAL *b, REAL *c, size_t n,
						  size_t count)
{
	for (size_t i = 0; i < count; i++) {
		REAL sum = 0;

		for (size_t k = 0; k < n; k++)
			sum += a[i * n + k] * b[k];
		c[i] = sum;
	}
}
#else
__attribute__((noipa)) static void MULTIPLY_ROWS(const REAL *a, const REAL *b, REAL *c, size_t n,
						  size_t count)
{
	memset(c, 0, count * n * sizeof *c);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < n; k++)
			for (size_t j = 0; j < n; j++)
				c[i * n + j] += a[i * n + k] * b[k * n + j];
}
#endif
